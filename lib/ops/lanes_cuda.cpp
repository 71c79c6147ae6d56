// A lane waits for an event of the caller's stream, and the caller for one of the lane's. Tensors that cross
// are recorded with the allocator: their memory is not handed out again while the other stream may use it.
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <atomic>
#include <optional>
#include <stdexcept>

#include "lib/ops/lanes.h"

namespace hax::ops {
namespace {

using c10::cuda::CUDAStream;

struct LaneStream {
  std::optional<CUDAStream> stream;
  std::atomic<bool> used{false};  // since the scope was opened
};
using LaneStreams = std::array<LaneStream, kLanes>;
std::atomic<LaneStreams*> lanes{nullptr};

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
  LaneStreams* streams = lanes;
  if (!streams) return;
  LaneStream& chosen = streams->at(static_cast<size_t>(lane));
  chosen.used = true;
  const CUDAStream own = chosen.stream.value();
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
  static LaneStreams streams;
  if (lanes) throw std::logic_error("LaneScope: one is open");
  for (int i = 0; i < kLanes; ++i) {
    LaneStream& lane = streams[static_cast<size_t>(i)];
    if (!lane.stream || lane.stream->device_index() != device.index())
      lane.stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/i < kUrgentLanes, device.index());
    lane.used = false;
  }
  lanes = &streams;
}

LaneScope::~LaneScope() { lanes = nullptr; }

bool LaneScope::open() { return lanes != nullptr; }

void LaneScope::join_all() {
  for (const LaneStream& lane : *lanes.load()) {
    if (lane.used) wait(c10::cuda::getCurrentCUDAStream(lane.stream->device_index()), *lane.stream);
  }
}

}  // namespace hax::ops
