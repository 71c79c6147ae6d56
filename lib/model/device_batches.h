// Batches on their way to a GPU, and what a CUDA graph of a forward pass reads them from: everything has a
// fixed place, and capacities (tokens, scored positions) are rounded up so that a few graphs do for all
// batches. Built with HAX_CUDA.
#pragma once

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <array>

#include "lib/model/language_model.h"
#include "lib/ops/cuda/step_io.h"

namespace hax {

class DeviceBatches {
 public:
  // Of `batch_size` examples each; `data` says how long they may be. Captured work runs on `stream`.
  DeviceBatches(int64_t batch_size, const DataSpec& data, c10::cuda::CUDAStream stream);

  // The capacities that `batch` needs; equal ones share a graph.
  ops::cuda::StepShape shape_of(const Batch& batch) const;
  // Copies batch, step and learning rate to the device beside the work that runs there; work that `stream`
  // gets afterwards sees them. The host waits only when kStaging batches are on their way. Throws
  // std::invalid_argument for a larger batch than was said.
  void bring(const Batch& batch, int64_t step, float lr, const ops::cuda::StepShape& shape);
  // To be captured: what was brought last, unpacked. Rows not in use: see ops::cuda::StepInput.
  ModelInput unpack(const ops::cuda::StepShape& shape);

  const at::Tensor& step() const { return step_; }            // (1) int64
  const at::Tensor& lr() const { return lr_; }                // (1) fp32
  const at::Tensor& cu_scored() const { return cu_scored_; }  // (batch_size + 1) int64

 private:
  static constexpr size_t kStaging = 4;
  struct Staged {
    at::Tensor words;    // pinned
    at::Tensor arrived;  // on the device
    at::cuda::CUDAEvent copied, read;
    bool in_use = false;
  };

  const DataSpec data_;
  c10::cuda::CUDAStream stream_, copies_;
  std::array<Staged, kStaging> staging_;
  size_t next_ = 0;
  at::Tensor words_, step_, lr_, cu_seqlens_, cu_scored_, tokens_, seq_id_, position_, scored_, targets_;
};

}  // namespace hax
