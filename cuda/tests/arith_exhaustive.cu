// exp2, log, sigmoid, tanh and gelu over all 2^32 float32 inputs, by_127 over all that it is for: the GPU's bits against the
// CPU's. NaNs are equal to each other whatever their payload.
#include <cstdlib>
#include <thread>

#include "arith/by_127.h"
#include "arith/exp2.h"
#include "arith/log.h"
#include "arith/tanh.h"
#include "tests/testing.h"

namespace orcd::testing {
namespace {

constexpr uint64_t kPiece = 1 << 26;

ORCD_HD float evaluate(int function, float x) {
  switch (function) {
    case 0: return arith::exp2(x);
    case 1: return arith::log(x);
    case 2: return arith::sigmoid(x);
    case 3: return arith::tanh(x);
    case 4: return arith::gelu(x);
    default: return x >= 0x1p-100f && x < arith::infinity() ? arith::by_127(x) : 0.0f;
  }
}

__global__ void on_gpu(int function, uint32_t first, float* y) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = evaluate(function, arith::float_of(first + i));
}

uint64_t differences(int function, uint32_t first, const float* y, uint64_t n) {
  uint64_t bad = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const float expected = evaluate(function, arith::float_of(uint32_t(first + i)));
    const bool both_nan = expected != expected && y[i] != y[i];
    bad += !both_nan && arith::bits_of(expected) != arith::bits_of(y[i]);
  }
  return bad;
}

}  // namespace

int run(uint64_t stride) {
  const char* names[] = {"exp2", "log", "sigmoid", "tanh", "gelu", "by_127"};
  device::Buffer<float> y(kPiece);
  device::Pinned<float> host(kPiece);
  const uint32_t threads = std::max(1u, std::thread::hardware_concurrency());
  for (int function = 0; function < 6; ++function) {
    uint64_t bad = 0, seen = 0;
    for (uint64_t first = 0; first < uint64_t{1} << 32; first += kPiece * stride) {
      on_gpu<<<kPiece / 256, 256>>>(function, uint32_t(first), y.data());
      ORCD_CUDA(cudaGetLastError());
      ORCD_CUDA(cudaMemcpy(host.data(), y.data(), y.bytes(), cudaMemcpyDeviceToHost));
      std::vector<uint64_t> of_thread(threads);
      std::vector<std::thread> pool;
      for (uint32_t t = 0; t < threads; ++t)
        pool.emplace_back([&, t] {
          const uint64_t from = kPiece * t / threads, to = kPiece * (t + 1) / threads;
          of_thread[t] = differences(function, uint32_t(first + from), host.data() + from, to - from);
        });
      for (std::thread& t : pool) t.join();
      for (const uint64_t n : of_thread) bad += n;
      seen += kPiece;
    }
    ++checks;
    failures += bad != 0;
    std::printf("%s: %llu inputs, %llu differ\n", names[function], static_cast<unsigned long long>(seen),
                static_cast<unsigned long long>(bad));
  }
  return report("arith_exhaustive");
}

}  // namespace orcd::testing

int main(int argc, char** argv) {
  if (const int code = orcd::testing::need_gpu("arith_exhaustive")) return code < 0 ? 0 : code;
  try {
    return orcd::testing::run(argc > 1 ? uint64_t(std::atoi(argv[1])) : 1);
  } catch (const orcd::Error& e) {
    std::printf("FAILED arith_exhaustive: %s\n", e.what());
    return 1;
  }
}
