#include "gpu/rope_table.h"

#include <algorithm>
#include <thread>

namespace orcd::gpu {
namespace {

constexpr uint32_t kMostThreads = 16;
constexpr uint32_t kLeastPositions = 512;  // fewer are not worth a thread

}  // namespace

std::vector<arith::CosSin> rope_table(std::span<const double> frequency, double magnitude, uint32_t positions) {
  const uint32_t pairs = uint32_t(frequency.size());
  std::vector<arith::CosSin> table(uint64_t{positions} * pairs);
  const auto fill = [&](uint32_t first, uint32_t end) {
    for (uint32_t p = first; p < end; ++p)
      for (uint32_t i = 0; i < pairs; ++i) table[uint64_t{p} * pairs + i] = arith::cos_sin(p * frequency[i], magnitude);
  };
  const uint32_t cores = std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads);
  const uint32_t each = std::max(kLeastPositions, (positions + cores - 1) / cores);
  std::vector<std::jthread> threads;
  for (uint32_t first = each; first < positions; first += each)
    threads.emplace_back(fill, first, std::min(positions, first + each));
  fill(0, std::min(positions, each));
  threads.clear();  // joins
  return table;
}

}  // namespace orcd::gpu
