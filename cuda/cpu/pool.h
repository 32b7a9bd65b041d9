// Threads that share the chunks of one operation at a time. Which thread takes which chunk is left to
// chance: no result may depend on it.
//
// A step has a hundred operations of some microseconds each, so workers spin for the next one before
// they sleep. Chunks are claimed one by one, so a worker that the scheduler has put aside costs its own
// chunk at most: the caller takes all the others itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace orcd::cpu {

class Pool {
 public:
  // `threads` in all, the caller's included; 0 = one per core. Fewer where the system gives no more.
  explicit Pool(uint32_t threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  // Calls f(i) for every i < n, on this thread alone for n = 1, and returns when all are done. What f
  // throws, whichever thread it ran on, comes out here, the first of several; chunks that had not
  // begun by then are left out.
  template <class F>
  void run(uint32_t n, const F& f) {
    if (n <= 1 || workers_.empty()) {
      for (uint32_t i = 0; i < n; ++i) f(i);
      return;
    }
    share(n, [](const void* context, uint32_t i) { (*static_cast<const F*>(context))(i); }, &f);
  }

 private:
  using Call = void (*)(const void* context, uint32_t i);

  void share(uint32_t n, Call call, const void* context);
  void work(uint32_t epoch);
  void fail() noexcept;
  void worker();

  // Upper half: number of the operation; lower half: the next chunk to claim.
  std::atomic<uint64_t> claim_{kClosed};
  std::atomic<uint32_t> n_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::atomic<uint32_t> wake_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};  // a chunk of this operation has thrown
  std::exception_ptr error_;         // by the thread that set failed_; read when all chunks are done
  std::vector<std::thread> workers_;

  // No chunk of this number is ever claimed: the operation is over.
  static constexpr uint64_t kClosed = UINT32_MAX;
};

}  // namespace orcd::cpu
