// Time of products by shape, type and number of rows: what the choice among shapes of thread blocks is made of.
//
//   bench_products [--quick | --shapes]
//
// --shapes: every shape of warpgroups, with what it is taken to cost, for K-quants.
//
// Weights lie in so much memory that they come from there and not from the L2 cache.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "device/stream.h"
#include "formats/formats.h"
#include "kernels/pdl.h"
#include "kernels/several_rows.cuh"
#include "tests/testing.h"

namespace orcd::testing {
namespace {

struct Product {
  const char* name;
  TensorType type;
  std::vector<uint32_t> heights;
  uint32_t cols;
};

const Product kProducts[] = {
    {"8B q, k, v", TensorType::kQ4_K, {4096, 1024, 1024}, 4096},
    {"8B attention output", TensorType::kQ4_K, {4096}, 4096},
    {"8B gate, up", TensorType::kQ4_K, {14336, 14336}, 4096},
    {"8B down", TensorType::kQ4_K, {4096}, 14336},
    {"8B down", TensorType::kQ6_K, {4096}, 14336},
    {"8B output", TensorType::kQ6_K, {128256}, 4096},
    {"0.5B q, k, v", TensorType::kQ5_0, {896, 128, 128}, 896},
    {"0.5B attention output", TensorType::kQ5_0, {896}, 896},
    {"0.5B gate, up", TensorType::kQ5_0, {4864, 4864}, 896},
    {"0.5B down", TensorType::kQ4_K, {896}, 4864},
    {"0.5B down", TensorType::kQ6_K, {896}, 4864},
    {"0.5B output", TensorType::kQ8_0, {151936}, 896},
};

class Bench {
 public:
  void line(const Product& p, uint32_t rows) {
    uint64_t bytes = 0, outputs = 0;
    for (const uint32_t n : p.heights) bytes += n * formats::row_bytes(p.type, p.cols), outputs += n;
    if (rows * outputs > y_.size() || p.cols * uint64_t(rows) > kMany) return;
    const uint64_t copies = std::clamp<uint64_t>(kWeights / (bytes + 1024), 1, 8);
    int8_t* base = reinterpret_cast<int8_t*>(input_.data());
    const Quantized q = {base, reinterpret_cast<float*>(base + kMany), reinterpret_cast<int32_t*>(base + kMany / 4 * 5),
                         reinterpret_cast<uint32_t*>(base + kMany / 4 * 5),
                         kernels::processor().warpgroups ? input_.data() : nullptr};
    const Activations in = {p.cols, nullptr, q, q};
    const auto list_of = [&](uint64_t copy) {
      uint8_t* at = weights_.data() + copy * ((bytes + 1023) / 256 * 256);
      std::vector<MatmulArgs> list;
      float* y = y_.data();
      for (const uint32_t n : p.heights) {
        list.push_back({{p.type, n, p.cols, at}, y});
        at += n * formats::row_bytes(p.type, p.cols), y += uint64_t{n} * rows;
      }
      return list;
    };
    const double us = median(uint32_t(copies), [&](uint64_t copy) {
      const std::vector<MatmulArgs> list = list_of(copy);
      kernels::matmul(list.data(), uint32_t(list.size()), in, rows, stream_);
    });
    const double macs = double(rows) * outputs * p.cols;
    std::printf("| %-22s | %2u | %4u | %8.1f | %6.1f T MAC/s | %9.2f |\n", p.name, uint32_t(p.type), rows, us,
                macs / us / 1e6, bytes / 3.0e6 / us);
    std::fflush(stdout);
    if (!shapes || !q.tiles || rows < kernels::kLeastTiled) return;
    const auto args_of = [&](uint64_t copy) {
      const std::vector<MatmulArgs> list = list_of(copy);
      return kernels::several_rows(list.data(), uint32_t(list.size()), in, rows);
    };
    uint32_t shape = 0;
    const auto measure = [&](const kernels::Choice& c) {
      const double took = median(uint32_t(copies), [&](uint64_t copy) {
        kernels::SeveralRowsArgs a = args_of(copy);
        c.launch(a, stream_);
      });
      std::printf("|   warpgroups, shape %u: %8.1f us, cost %u\n", shape++, took, c.cost);
    };
    if (p.type == TensorType::kQ4_K) kernels::visit_warpgroups<TensorType::kQ4_K>(args_of(0), measure);
    if (p.type == TensorType::kQ6_K) kernels::visit_warpgroups<TensorType::kQ6_K>(args_of(0), measure);
  }

  bool shapes = false;

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

  static constexpr uint64_t kWeights = uint64_t{1} << 30, kMany = uint64_t{32} << 20;
  device::Stream stream_;
  device::Buffer<uint8_t> weights_ = filled(kWeights), input_ = filled(4 * kMany);
  device::Buffer<float> y_ = device::Buffer<float>(uint64_t{2048} * 28672);
};

}  // namespace

int run(bool quick, bool shapes) {
  std::printf("| %-22s | ty | rows |       us |                | of 3 TB/s |\n", "product");
  Bench bench;
  bench.shapes = shapes;
  for (const Product& p : kProducts)
    for (const uint32_t rows : {2u, 4u, 8u, 16u, 32u, 48u, 64u, 80u, 96u, 128u, 256u, 512u, 2048u})
      if (!quick || rows == 8 || rows == 512) bench.line(p, rows);
  return 0;
}

}  // namespace orcd::testing

int main(int argc, char** argv) {
  using namespace orcd::testing;
  if (const int without = need_gpu("bench_products")) return without < 0 ? 0 : without;
  try {
    const std::string flag = argc > 1 ? argv[1] : "";
    return run(flag == "--quick", flag == "--shapes");
  } catch (const orcd::Error& e) {
    std::printf("FAILED bench_products: %s\n", e.what());
    return 1;
  }
}
