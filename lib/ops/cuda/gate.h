// The gates at the end of a mixer (lib/ops/gate.h), with and without norm, forward and backward.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

struct GateShape {
  int64_t rows;
  int64_t d;  // at most kGateWidest
  float eps;
};
constexpr int64_t kGateWidest = 2048;

template <class T>
struct GateInput {
  Rows<const T> y, z;
  Rows<const T> O;      // data null: no branch
  const float* E;       // (d), read with O
  const float* weight;  // (d), of the norm; null: none
};

// T: float or __nv_bfloat16. out (rows, d) contiguous.
template <class T>
void gate_forward(const GateShape& shape, const GateInput<T>& in, T* out, cudaStream_t stream);

// dy also takes the gradient of y + O * E; dO is written where there is a branch. parts: gate_parts_floats
// partial sums of the gradients of the weight and of E.
template <class T>
struct GateGradient {
  Rows<T> dy, dz, dO;
  float* parts;
};

int64_t gate_parts_floats(const GateShape& shape);

template <class T>
void gate_backward(const GateShape& shape, const GateInput<T>& in, Rows<const T> upstream,
                   const GateGradient<T>& out, cudaStream_t stream);
// sums (2, d): of the weight and of E; zero for what is not there.
void gate_sums(const GateShape& shape, const float* parts, float* sums, cudaStream_t stream);

}  // namespace hax::ops::cuda
