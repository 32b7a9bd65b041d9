#include "cpu/pool.h"

#include <algorithm>
#include <system_error>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace orcd::cpu {
namespace {

// About 50 µs: longer than the gap between two operations, and between two steps of one stream.
constexpr uint32_t kSpins = 1500;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(uint32_t threads) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  workers_.reserve(threads - 1);
  try {
    for (uint32_t i = 1; i < threads; ++i) workers_.emplace_back([this] { worker(); });
  } catch (const std::system_error&) {
    // No room for another stack, or no thread left: those there are do the same work.
  }
}

Pool::~Pool() {
  stop_ = true;
  wake_ += 1;
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void Pool::share(uint32_t n, Call call, const void* context) {
  const uint32_t epoch = static_cast<uint32_t>(claim_.load(std::memory_order_relaxed) >> 32) + 1;
  // The last operation was closed, so nobody claims by these until the new epoch is out.
  n_.store(n, std::memory_order_release);
  call_.store(call, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  claim_.store(uint64_t{epoch} << 32);
  if (sleepers_.load() > 0) {
    wake_ += 1;
    wake_.notify_all();
  }
  work(epoch);
  for (uint32_t spins = 0; done_.load(std::memory_order_acquire) != n; ++spins) {
    // A worker that holds a chunk may have lost its core to somebody: give way.
    if (spins > 4 * kSpins) std::this_thread::yield();
    relax();
  }
  claim_.store(uint64_t{epoch} << 32 | kClosed);
  if (!failed_.load(std::memory_order_relaxed)) return;
  failed_.store(false, std::memory_order_relaxed);  // nobody looks: the operation is closed
  std::rethrow_exception(std::exchange(error_, nullptr));
}

void Pool::fail() noexcept {
  // done_ brings what is written here to the caller.
  if (!failed_.exchange(true)) error_ = std::current_exception();
}

void Pool::work(uint32_t epoch) {
  uint64_t claim = claim_.load(std::memory_order_acquire);
  for (;;) {
    const auto i = static_cast<uint32_t>(claim);
    if (claim >> 32 != epoch || i >= n_.load(std::memory_order_acquire)) return;
    const Call call = call_.load(std::memory_order_acquire);
    const void* context = context_.load(std::memory_order_acquire);
    // Succeeds only while this operation is still the current one, so what was read belongs to it.
    if (!claim_.compare_exchange_weak(claim, claim + 1)) continue;
    try {
      if (!failed_.load(std::memory_order_relaxed)) call(context, i);
    } catch (...) {
      fail();
    }
    done_.fetch_add(1, std::memory_order_release);
    claim = claim_.load(std::memory_order_acquire);
  }
}

void Pool::worker() {
  uint32_t seen = 0;
  while (!stop_.load()) {
    const auto current = [this] { return static_cast<uint32_t>(claim_.load(std::memory_order_acquire) >> 32); };
    for (uint32_t spins = 0; current() == seen && spins < kSpins; ++spins) relax();
    if (current() == seen) {
      const uint32_t ticket = wake_.load();
      sleepers_ += 1;
      // Looked at again behind the announcement: either this sees the new epoch, or share() the sleeper.
      if (claim_.load() >> 32 == seen && !stop_.load()) wake_.wait(ticket);
      sleepers_ -= 1;
      continue;
    }
    seen = current();
    work(seen);
  }
}

}  // namespace orcd::cpu
