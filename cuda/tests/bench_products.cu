// Time of the products of some rows, by kernel and number of rows: what plans are made of.
//
//   bench_products [--quick]
//
// Weights lie in so much memory that they come from there and not from the L2 cache.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "device/stream.h"
#include "formats/formats.h"
#include "kernels/launch.h"
#include "tests/testing.h"

namespace orcd::testing {
namespace {

struct Product {
  const char* name;
  TensorType type;
  std::vector<uint32_t> heights;
  uint32_t cols;
  bool swiglu;
};

const Product kProducts[] = {
    {"8B q, k, v", TensorType::kQ4_K, {4096, 1024, 1024}, 4096, false},
    {"8B attention output", TensorType::kQ4_K, {4096}, 4096, false},
    {"8B gate, up", TensorType::kQ4_K, {14336, 14336}, 4096, true},
    {"8B down", TensorType::kQ4_K, {4096}, 14336, false},
    {"8B down", TensorType::kQ6_K, {4096}, 14336, false},
    {"8B output", TensorType::kQ6_K, {128256}, 4096, false},
    {"0.5B q, k, v", TensorType::kQ5_0, {896, 128, 128}, 896, false},
    {"0.5B attention output", TensorType::kQ5_0, {896}, 896, false},
    {"0.5B gate, up", TensorType::kQ5_0, {4864, 4864}, 896, true},
    {"0.5B down", TensorType::kQ4_K, {896}, 4864, false},
    {"0.5B down", TensorType::kQ6_K, {896}, 4864, false},
    {"0.5B output", TensorType::kQ8_0, {151936}, 896, false},
};

class Bench {
 public:
  void line(const Product& p, uint32_t rows) {
    uint64_t bytes = 0;
    for (const uint32_t n : p.heights) bytes += n * formats::row_bytes(p.type, p.cols);
    const uint64_t copies = std::clamp<uint64_t>(kWeights / (bytes + 1024), 1, 24);
    const auto tensors = [&](uint64_t copy) {
      uint8_t* at = weights_.data() + copy * ((bytes + 1023) / 256 * 256);
      std::vector<kernels::MatmulJob> jobs;
      float* y = y_.data();
      for (const uint32_t n : p.heights) {
        jobs.push_back({{p.type, n, p.cols, at}, nullptr, y});
        at += n * formats::row_bytes(p.type, p.cols), y += uint64_t{n} * rows;
      }
      return jobs;
    };
    const uint32_t groups = (rows + 7) / 8;
    const auto tiled = [&](uint32_t half) {
      int8_t* base = reinterpret_cast<int8_t*>(input_.data()) + half * kInput;
      return kernels::TiledActivations{groups, base, reinterpret_cast<float*>(base + kInput / 2),
                                       reinterpret_cast<int32_t*>(base + kInput / 8 * 5),
                                       reinterpret_cast<int32_t*>(base + kInput / 8 * 6)};
    };
    const kernels::TiledActivations in = tiled(0), out = tiled(1);
    std::vector<Tensor> list;
    for (const auto& job : tensors(0)) list.push_back(job.w);
    const auto n = uint32_t(list.size());
    const auto time = [&](auto* gemm) {
      return median(uint32_t(copies), [&](uint64_t copy) {
        const auto jobs = tensors(copy);
        gemm(jobs.data(), n, in, rows, p.swiglu ? &out : nullptr, true, stream_);
      });
    };
    const double small = kernels::gemm_small_m_fits(list.data(), n, rows, p.swiglu) ? time(kernels::gemm_small_m) : 0;
    const double chunked = time(kernels::gemm_chunked);
    const double floor = bytes / 3.0e6;
    std::printf("| %-22s | %2u | %3u | %8.1f | %8.1f | %8.1f | %5.2f |\n", p.name, uint32_t(p.type), rows, floor, small,
                chunked, floor / std::min(chunked, small > 0 ? small : chunked));
    std::fflush(stdout);
  }

 private:
  template <class Launch>
  double median(uint32_t copies, const Launch& launch) {
    const uint32_t n = std::max(8u, copies);
    launch(0);
    stream_.wait();
    const device::Graph graph = device::Graph::capture(stream_, [&] {
      for (uint32_t i = 0; i < n; ++i) launch(i % copies);
    });
    cudaEvent_t begin, end;
    ORCD_CUDA(cudaEventCreate(&begin));
    ORCD_CUDA(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = 0; i < 9; ++i) {
      ORCD_CUDA(cudaEventRecord(begin, stream_));
      graph.launch(stream_);
      ORCD_CUDA(cudaEventRecord(end, stream_));
      ORCD_CUDA(cudaEventSynchronize(end));
      float ms = 0;
      ORCD_CUDA(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 2) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    cudaEventDestroy(begin), cudaEventDestroy(end);
    return times[times.size() / 2] * 1e3 / n;
  }

  static constexpr uint64_t kWeights = uint64_t{1} << 30, kInput = uint64_t{8} << 20;
  device::Stream stream_;
  device::Buffer<uint8_t> weights_ = filled(kWeights), input_ = filled(2 * kInput);
  device::Buffer<float> y_ = device::Buffer<float>(uint64_t{64} * 151936);
};

}  // namespace

int run(bool quick) {
  std::printf("| %-22s | ty | rows | floor us | small_m | chunked | share |\n", "product");
  Bench bench;
  for (const Product& p : kProducts)
    for (const uint32_t rows : {2u, 4u, 8u, 16u, 32u, 64u})
      if (!quick || rows == 8 || rows == 64) bench.line(p, rows);
  return 0;
}

}  // namespace orcd::testing

int main(int argc, char** argv) {
  using namespace orcd::testing;
  if (const int without = need_gpu("bench_products")) return without < 0 ? 0 : without;
  try {
    return run(argc > 1 && std::string(argv[1]) == "--quick");
  } catch (const orcd::Error& e) {
    std::printf("FAILED bench_products: %s\n", e.what());
    return 1;
  }
}
