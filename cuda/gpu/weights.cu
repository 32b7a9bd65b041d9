#include "gpu/weights.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "engine/model.h"
#include "formats/formats.h"
#include "kernels/launch.h"

namespace orcd::gpu {
std::unique_ptr<VmmWeights> VmmWeights::allocate(int ordinal, uint64_t bytes) {
  if (bytes == 0) throw Error(ErrorKind::kInvalid, "an empty weights image");
  return std::unique_ptr<VmmWeights>(new VmmWeights(device::Vmm::create(ordinal, bytes), bytes));
}

std::unique_ptr<VmmWeights> VmmWeights::attach(int ordinal, int fd, uint64_t bytes) {
  if (bytes == 0) throw Error(ErrorKind::kInvalid, "an empty weights image");
  try {
    std::unique_ptr<VmmWeights> w(new VmmWeights(device::Vmm::import(ordinal, fd, bytes), bytes));
    w->fd_ = fd;
    w->sealed_ = true;
    return w;
  } catch (...) {
    close(fd);
    throw;
  }
}

VmmWeights::~VmmWeights() {
  if (fd_ >= 0) close(fd_);
}

VmmWeights::Lane& VmmWeights::next_lane(size_t bytes) {
  Lane& lane = lanes_[turn_];
  turn_ = (turn_ + 1) % kLanes;
  if (lane.raw.size() < bytes) {
    lane.packed.wait();
    lane.raw = device::Buffer<uint8_t>(std::max(kLaneBytes, bytes));
  }
  return lane;
}

// Copies and packing run beside each other on a stream each: a lane is packed once it was copied, and
// copied into once it was packed.
uint64_t VmmWeights::write(const TensorDesc& d, uint64_t first_row, std::span<const uint8_t> raw) {
  if (sealed_) throw Error(ErrorKind::kInvalid, "the weights image is sealed");
  uint64_t left = rows_in(d, first_row, raw.size(), bytes_);
  const uint64_t row = formats::row_bytes(d.type, d.cols), at_once = std::max<uint64_t>(1, kLaneBytes / row);
  const uint8_t* from = raw.data();
  while (left > 0) {
    const uint64_t n = std::min(left, at_once);
    Lane& lane = next_lane(n * row);
    lane.packed.precede(copies_);
    ORCD_CUDA(cudaMemcpyAsync(lane.raw.data(), from, n * row, cudaMemcpyHostToDevice, copies_));
    lane.copied.record(copies_);
    lane.copied.precede(packing_);
    kernels::pack(d.type, uint32_t(d.rows), uint32_t(d.cols), uint32_t(first_row), uint32_t(n), lane.raw.data(),
                  memory_.data() + d.offset, packing_);
    lane.packed.record(packing_);
    from += n * row;
    first_row += n;
    left -= n;
  }
  ++written_;
  read_of(written_).record(copies_);
  return written_;
}

void VmmWeights::wait(uint64_t ticket) {
  if (ticket > written_) throw Error(ErrorKind::kInvalid, "no write has number " + std::to_string(ticket));
  read_of(ticket).wait();  // or that of a later write, which copied later
}

void VmmWeights::seal() {
  if (sealed_) return;
  copies_.wait();
  packing_.wait();
  for (Lane& lane : lanes_) lane.raw = {};  // for loading only
  memory_.make_read_only();
  fd_ = memory_.export_fd();
  sealed_ = true;
}

void VmmWeights::read(const TensorDesc& d, uint64_t first_row, std::span<uint8_t> raw) const {
  const uint64_t n = rows_in(d, first_row, raw.size(), bytes_);
  device::Buffer<uint8_t> rows(raw.size() + 4);  // unpacking works on whole words
  kernels::unpack(d.type, uint32_t(d.rows), uint32_t(d.cols), uint32_t(first_row), uint32_t(n),
                  memory_.data() + d.offset, rows.data(), packing_);
  ORCD_CUDA(cudaMemcpyAsync(raw.data(), rows.data(), raw.size(), cudaMemcpyDeviceToHost, packing_));
  packing_.wait();
}

}  // namespace orcd::gpu
