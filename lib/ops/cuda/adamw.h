// AdamW (Loshchilov and Hutter 2019) over flat buffers, with everything that changes from step to step on the
// device.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

struct AdamWSettings {
  double beta1, beta2, eps, weight_decay;
  double grad_clip;  // largest gradient norm; 0: off
};

// One update with learning rate *lr, the (*step + 1)-th; *grad_norm is read when clipping. Nothing changes
// where *skip is not 0.
void adamw(int64_t n, const AdamWSettings& settings, const float* lr, const int64_t* step,
           const float* grad_norm, const int32_t* skip, const float* grad, float* weight, float* exp_avg,
           float* exp_avg_sq, cudaStream_t stream);

// The same in bf16, every operation rounded to it, in the order of AdamW::rounded_update
// (lib/train/optimiser.h).
void adamw(int64_t n, const AdamWSettings& settings, const float* lr, const int64_t* step,
           const float* grad_norm, const int32_t* skip, const __nv_bfloat16* grad, __nv_bfloat16* weight,
           __nv_bfloat16* exp_avg, __nv_bfloat16* exp_avg_sq, cudaStream_t stream);

// sqrt of the sum of squares, in a fixed order. scratch: kNormBlocks floats.
constexpr int64_t kNormBlocks = 128;
template <class T>
void global_norm(int64_t n, const T* x, float* norm, float* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
