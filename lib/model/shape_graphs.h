// CUDA graphs of one piece of work, one for each capacity of its input (DeviceBatches). Built with HAX_CUDA.
#pragma once

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAStream.h>

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "lib/ops/cuda/step_io.h"

namespace hax {

class ShapeGraphs {
 public:
  explicit ShapeGraphs(c10::cuda::CUDAStream stream);
  // Replays on the stream, which is current. The first time for a shape `warm_up` runs, in which libraries
  // set themselves up, and `work` is captured; both have the same launches. What they throw
  // (ops::NeedsHostLengths) passes through, and nothing is kept. Graphs share one memory pool: they never run
  // at the same time.
  void replay(const ops::cuda::StepShape& shape, const std::function<void()>& warm_up,
              const std::function<void()>& work);

 private:
  c10::cuda::CUDAStream stream_;
  at::cuda::MempoolId_t pool_;
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<at::cuda::CUDAGraph>> graphs_;
};

}  // namespace hax
