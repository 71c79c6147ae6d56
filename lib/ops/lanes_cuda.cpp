// A lane waits for an event of the caller's stream, and the caller for one of the lane's. Tensors that cross
// are recorded with the allocator: their memory is not handed out again while the other stream may use it.
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <optional>
#include <stdexcept>

#include "lib/ops/lanes.h"

namespace hax::ops {
namespace {

using c10::cuda::CUDAStream;

thread_local std::array<std::optional<CUDAStream>, kLanes>* lanes = nullptr;

void wait(const CUDAStream& waiting, const CUDAStream& done) {
  at::cuda::CUDAEvent event;
  event.record(done);
  event.block(waiting);
}

void record(const std::vector<at::Tensor>& tensors, const CUDAStream& stream) {
  for (const auto& tensor : tensors) {
    if (tensor.defined() && tensor.is_cuda()) tensor.record_stream(stream);
  }
}

}  // namespace

struct Lane::Streams {
  CUDAStream caller, own;
  bool left = false;
};

Lane::Lane(int lane, const std::vector<at::Tensor>& inputs) {
  if (!lanes) return;
  const CUDAStream own = lanes->at(static_cast<size_t>(lane)).value();
  streams_ = std::make_unique<Streams>(Streams{c10::cuda::getCurrentCUDAStream(own.device_index()), own});
  wait(own, streams_->caller);
  record(inputs, own);
  c10::cuda::setCurrentCUDAStream(own);
}

// A lane that an exception leaves gives the caller's stream back.
Lane::~Lane() { leave(); }

void Lane::leave() {
  if (!streams_ || streams_->left) return;
  streams_->left = true;
  c10::cuda::setCurrentCUDAStream(streams_->caller);
}

void Lane::join(const std::vector<at::Tensor>& outputs) {
  if (!streams_) return;
  if (!streams_->left) throw std::logic_error("Lane::join before leave");
  const CUDAStream waiting = c10::cuda::getCurrentCUDAStream(streams_->own.device_index());
  wait(waiting, streams_->own);
  record(outputs, waiting);
}

LaneScope::LaneScope(at::Device device) {
  if (lanes) throw std::logic_error("LaneScope: one is open");
  thread_local std::array<std::optional<CUDAStream>, kLanes> streams;
  for (int i = 0; i < kLanes; ++i) {
    auto& stream = streams[static_cast<size_t>(i)];
    if (!stream || stream->device_index() != device.index())
      stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/i < kUrgentLanes, device.index());
  }
  lanes = &streams;
}

LaneScope::~LaneScope() { lanes = nullptr; }

}  // namespace hax::ops
