// dB and dC of the SSD scan where several blocks share a group: each leaves fp32 parts, and they are added in
// a fixed order.
#pragma once

#include <type_traits>

#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/ssd_plan.h"

namespace hax::ops::cuda {

// Of dB and dC together: (2, parts, rows, G * N).
inline int64_t ssd_key_parts_bytes(const SsdPlan& plan) {
  return plan.parts == 1 ? 0 : 2 * plan.parts * plan.layout.rows * plan.G * plan.N * 4;
}

// f(dB, dC): the gradients themselves, or the parts where there are several.
template <class T, class F>
void with_key_gradients(const SsdPlan& plan, const SsdGradient<T>& out, float* parts, const F& f) {
  const int64_t columns = plan.G * plan.N;
  if (plan.parts == 1)
    f(out.dB, out.dC);
  else
    f(Rows<float>{parts, columns}, Rows<float>{parts + plan.parts * plan.layout.rows * columns, columns});
}

// Rows behind those in use are zeros whatever the parts hold.
template <class T>
__global__ void __launch_bounds__(256)
    ssd_key_parts_kernel(SsdPlan plan, const float* __restrict__ from, Rows<T> dB, Rows<T> dC) {
  const int columns = plan.G * plan.N, pairs = (columns + 1) / 2;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x, row = i / pairs;
  if (row >= plan.layout.rows) return;
  const int column = static_cast<int>(i - row * pairs) * 2;
  const int64_t size = plan.layout.rows * columns;
  const float* own = from + blockIdx.y * plan.parts * size + row * columns + column;
  const bool in_use = row < plan.layout.cu_seqlens[plan.layout.batch], second = column + 1 < columns;
  float2 sum = make_float2(0.0f, 0.0f);
  for (int part = 0; in_use && part < plan.parts; ++part, own += size) {
    if (columns % 2 == 0) {
      const float2 more = *reinterpret_cast<const float2*>(own);
      sum.x += more.x;
      sum.y += more.y;
    } else {
      sum.x += own[0];
      if (second) sum.y += own[1];
    }
  }
  const Rows<T>& to = blockIdx.y == 0 ? dB : dC;
  store_pair(to.data + row * to.stride, column, columns, sum.x, sum.y);
}

template <class T>
void sum_key_parts(const SsdPlan& plan, const float* parts, const SsdGradient<T>& out, cudaStream_t stream) {
  if (plan.parts == 1) return;
  const int64_t pairs = (plan.G * plan.N + 1) / 2;
  const dim3 grid(static_cast<unsigned>(ceil_div(plan.layout.rows * pairs, 256)), 2);
  ssd_key_parts_kernel<T><<<grid, 256, 0, stream>>>(plan, parts, out.dB, out.dC);
  check_launch("the SSD scan's sums over blocks", plan.text());
}

}  // namespace hax::ops::cuda
