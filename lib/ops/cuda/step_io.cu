#include "lib/ops/cuda/step_io.h"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void unpack_kernel(StepShape shape, const int32_t* __restrict__ words, StepInput out) {
  const int32_t* cu_seqlens = words + 4;
  const int32_t* cu_scored = cu_seqlens + shape.batch + 1;
  const int32_t* tokens = cu_scored + shape.batch + 1;
  const int32_t* scored = tokens + shape.rows;
  const int32_t* targets = scored + shape.scored_rows;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i == 0) {
    *out.step = static_cast<int64_t>(static_cast<uint32_t>(words[0])) | static_cast<int64_t>(words[1]) << 32;
    *out.lr = __int_as_float(words[2]);
  }
  if (i <= shape.batch) {
    out.cu_seqlens[i] = cu_seqlens[i];
    out.cu_scored[i] = cu_scored[i];
  }
  if (i < shape.rows) {
    int sequence = static_cast<int>(shape.batch), place = 0;
    if (i < cu_seqlens[shape.batch]) {
      int low = 0, high = static_cast<int>(shape.batch);  // cu_seqlens[low] <= i < cu_seqlens[high]
      while (high - low > 1) {
        const int middle = (low + high) / 2;
        (cu_seqlens[middle] <= i ? low : high) = middle;
      }
      sequence = low;
      place = static_cast<int>(i) - cu_seqlens[low];
    }
    out.tokens[i] = sequence < shape.batch ? tokens[i] : 0;
    out.seq_id[i] = sequence;
    out.position[i] = place;
  }
  if (i < shape.scored_rows) {
    const bool used = i < cu_scored[shape.batch];
    out.scored[i] = used ? scored[i] : -1;
    out.targets[i] = used ? targets[i] : -1;
  }
}

__global__ void record_kernel(StepNumbers numbers, const int64_t* __restrict__ step, float* __restrict__ ring,
                              int32_t* __restrict__ stop) {
  const float values[4] = {*numbers.loss, numbers.aux_loss ? *numbers.aux_loss : 0.0f, *numbers.accuracy,
                           *numbers.grad_norm};
  float* place = ring + *step % kRingSteps * 4;
  bool finite = true;
  for (int i = 0; i < 4; ++i) {
    place[i] = values[i];
    finite = finite && isfinite(values[i]);
  }
  if (!finite) *stop = 1;
}

}  // namespace

void unpack_step(const StepShape& shape, const int32_t* words, const StepInput& out, cudaStream_t stream) {
  int64_t n = shape.rows > shape.scored_rows ? shape.rows : shape.scored_rows;
  if (n < shape.batch + 1) n = shape.batch + 1;
  unpack_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, stream>>>(shape, words, out);
  check_launch("unpack_step", "rows " + std::to_string(shape.rows));
}

void record_step(const StepNumbers& numbers, const int64_t* step, float* ring, int32_t* stop,
                 cudaStream_t stream) {
  record_kernel<<<1, 1, 0, stream>>>(numbers, step, ring, stop);
  check_launch("record_step", "one step");
}

}  // namespace hax::ops::cuda
