// Owners of streams, events and executable graphs.
#pragma once

#include <utility>

#include "device/check.h"

namespace orcd::device {

class Stream {
 public:
  Stream() { ORCD_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }
  void wait() const { ORCD_CUDA(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { ORCD_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  void record(cudaStream_t stream) const { ORCD_CUDA(cudaEventRecord(event_, stream)); }
  void wait() const { ORCD_CUDA(cudaEventSynchronize(event_)); }
  // What is put into `stream` from now on begins after this event; one never recorded holds up nothing.
  void precede(cudaStream_t stream) const { ORCD_CUDA(cudaStreamWaitEvent(stream, event_, 0)); }

 private:
  cudaEvent_t event_ = nullptr;
};

class Graph {  // what `record` launched into the stream, ready to be launched again
 public:
  Graph() = default;
  template <class Record>
  static Graph capture(const Stream& stream, Record&& record) {
    cudaGraph_t graph = nullptr;
    ORCD_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      record();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();  // of a capture that came to nothing: told by what is thrown
      throw;
    }
    ORCD_CUDA(cudaStreamEndCapture(stream, &graph));
    Graph result;
    const cudaError_t code = cudaGraphInstantiate(&result.exec_, graph, 0);
    cudaGraphDestroy(graph);
    ORCD_CUDA(code);
    return result;
  }
  Graph(Graph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(exec_, other.exec_);
    return *this;
  }
  ~Graph() {
    if (exec_) cudaGraphExecDestroy(exec_);
  }
  // Takes what memory its launches need, here and not with the first of them.
  void upload(const Stream& stream) const { ORCD_CUDA(cudaGraphUpload(exec_, stream)); }
  void launch(const Stream& stream) const { ORCD_CUDA(cudaGraphLaunch(exec_, stream)); }
  explicit operator bool() const { return exec_ != nullptr; }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace orcd::device
