// Parts of a step that do not need each other, side by side on a GPU.
//
// Work is put on a lane between its construction and leave(); join() makes the stream that is current
// then wait for it.
//   Lane lane(0, {u});                  // starts when u is ready
//   const at::Tensor a = f(u);          // on the lane
//   lane.leave();
//   const at::Tensor b = g(u);          // beside it
//   lane.join({a});                     // a may be used from here on
// Autograd runs the backward of each part on the lane of its forward. Outside a LaneScope (on a CPU, and in
// eager mode, which the host's launches bound) a lane is nothing and everything runs in order.
#pragma once

#include <memory>
#include <vector>

#include "lib/ops/torch.h"

namespace hax::ops {

constexpr int kLanes = 3;
constexpr int kUrgentLanes = 2;           // the first ones come before what else waits for the GPU
constexpr int kPatientLane = kLanes - 1;  // for what nothing waits for until the end of the step

class Lane {
 public:
  // Everything from outside that the work reads, but for weights and layouts, which outlive the step.
  Lane(int lane, const std::vector<at::Tensor>& inputs);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  void leave();
  // Everything that the work made and the caller reads. Undefined tensors are passed over.
  void join(const std::vector<at::Tensor>& outputs);

 private:
  struct Streams;
  std::unique_ptr<Streams> streams_;  // null outside a LaneScope
};

// While one lives, lanes are streams of `device`, for every thread: backward passes have their own. At most
// one lives at a time.
class LaneScope {
 public:
  explicit LaneScope(at::Device device);
  ~LaneScope();
  LaneScope(const LaneScope&) = delete;
  LaneScope& operator=(const LaneScope&) = delete;
  static bool open();
  // The current stream waits for all that lanes were given.
  void join_all();
};

}  // namespace hax::ops
