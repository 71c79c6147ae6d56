// Forward: states are summed chunk by chunk, carried along each sequence, and then every chunk's outputs
// follow by themselves: y = (C B^T o L) (dt x) + e o (C S_in) + D x.
#include "lib/ops/cuda/ssd_chunk.cuh"
#include "lib/ops/cuda/ssd_walk.h"

namespace hax::ops::cuda {
namespace {

// One or two sets of four warps, which have 16 rows each of every (second) head. The products C_i . B_j of a
// warp's rows stay in registers for all heads.
template <class T, int P>
__global__ void __launch_bounds__(256, sizeof(T) == 2 ? 2 : 1)
    output_kernel(SsdPlan plan, SsdInput<T> in, const T* __restrict__ states, T* __restrict__ y) {
  extern __shared__ uint4 shared[];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int N = plan.N_tile, first_head = blockIdx.y * plan.heads;
  const int group = first_head / (plan.H / plan.G);
  const int x_stride = plan.heads * P + kPad, key_stride = N + kPad;
  T* C = reinterpret_cast<T*>(shared);
  T* B = C + kChunk * key_stride;
  T* x = B + kChunk * key_stride;
  T* S = x + kChunk * x_stride;
  Decays* decays = reinterpret_cast<Decays*>(S + plan.heads * P * key_stride);
  if (span.used > 0) {
    copy_rows(C, in.C.data + span.begin * in.C.stride + group * plan.N, in.C.stride, kChunk, span.used, 1,
              plan.N, N);
    copy_rows(B, in.B.data + span.begin * in.B.stride + group * plan.N, in.B.stride, kChunk, span.used, 1,
              plan.N, N);
  }
  copy_rows(x, in.x.data + span.begin * in.x.stride + first_head * plan.P, in.x.stride, kChunk, span.used,
            plan.heads, plan.P, P);
  commit_copies();
  for (int i = 0; span.entered() > 0 && i < plan.heads; ++i) {
    copy_state(S + i * P * key_stride, plan, states, blockIdx.x, first_head + i);
  }
  commit_copies();
  set_all_decays(decays, plan, in, span, first_head);
  wait_copies<1>();
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, t = lane % 4;
  const int sets = blockDim.x / 128;
  const int rows[2] = {16 * warp + g, 16 * warp + g + 8};
  const int first[2] = {span.first(rows[0]), span.first(rows[1])};
  const bool in_use = 16 * warp < span.used;
  float CB[8][4] = {};
  if (in_use) {
    for (int k = 0; k < N; k += 16) {
      const OperandA<T> a = load_a(C + 16 * warp * key_stride + k, key_stride, lane);
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        if (j <= 2 * warp) mma(CB[j], CB[j + 1], a, load_two_b(B + 8 * j * key_stride + k, key_stride, lane));
      }
    }
  }
  wait_copies<0>();
  __syncthreads();
  for (int i = threadIdx.x / 128; i < plan.heads; i += sets) {
    const Decays& decay = decays[i];
    const int h = first_head + i;
    float sum[P / 8][4] = {};
    if (16 * warp < span.entered()) {
      const T* own = S + i * P * key_stride;
      for (int k = 0; k < N; k += 16) {
        const OperandA<T> a = load_a(C + 16 * warp * key_stride + k, key_stride, lane);
#pragma unroll
        for (int n = 0; n < P / 8; n += 2) {
          mma(sum[n], sum[n + 1], a, load_two_b(own + 8 * n * key_stride + k, key_stride, lane));
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float e = rows[r] < span.entered() ? decay.from_start(rows[r]) : 0.0f;
#pragma unroll
        for (int n = 0; n < P / 8; ++n) {
          sum[n][2 * r] *= e;
          sum[n][2 * r + 1] *= e;
        }
      }
    }
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      if (block > warp || !in_use) continue;
      WideA<T> a;
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const int r = pair % 2, j = 16 * block + pair / 2 * 8 + 2 * t;
        float m[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const bool reached = j + e <= rows[r] && j + e >= first[r];
          const float L = exp2_fast(decay.between(rows[r], j + e)) * decay.dt[j + e];
          m[e] = reached ? CB[2 * block + pair / 2][2 * r + e] * L : 0.0f;
        }
        a.set(pair, m[0], m[1]);
      }
#pragma unroll
      for (int n = 0; n < P / 8; n += 2) {
        mma(sum[n], sum[n + 1], a,
            load_two_b_transposed(x + 16 * block * x_stride + i * P + 8 * n, x_stride, lane));
      }
    }
    const float D = in.D[h];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = span.begin + rows[r];
      if (row >= plan.layout.rows) continue;
#pragma unroll
      for (int n = 0; n < P / 8; ++n) {
        const int p = 8 * n + 2 * t;
        const float2 own = load_pair(x + rows[r] * x_stride + i * P + p);
        store_pair(y + (row * plan.H + h) * plan.P, p, plan.P, sum[n][2 * r] + D * own.x,
                   sum[n][2 * r + 1] + D * own.y);
      }
    }
  }
}

}  // namespace

bool ssd_fits(const SsdShape& shape) { return shape.P <= 64 && shape.N <= 128; }

template <class T>
int64_t ssd_state_elements(const Layout& layout, const SsdShape& shape) {
  const SsdPlan plan = ssd_plan_of<T>(layout, shape);
  if (ssd_walks<T>(layout, shape)) return ssd_walk_slots(layout) * plan.H * plan.state_size();
  return plan.chunks * plan.H * plan.state_size();
}

template <class T>
int64_t ssd_forward_scratch_bytes(const Layout& layout, const SsdShape& shape) {
  if (ssd_walks<T>(layout, shape)) return 0;
  return ssd_carry_floats<T>(ssd_plan_of<T>(layout, shape)) * static_cast<int64_t>(sizeof(float));
}

template <class T>
void ssd_forward(const Layout& layout, const SsdShape& shape, const SsdInput<T>& in, T* y, T* states,
                 void* scratch, cudaStream_t stream) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (ssd_walks<T>(layout, shape)) return ssd_walk_forward(layout, shape, in, y, states, stream);
  }
  const SsdPlan plan = ssd_plan_of<T>(layout, shape);
  ssd_carry<T, SsdDirection::forward>(plan, in, in.x, static_cast<float*>(scratch), states, stream);
  const int64_t elements = kChunk * (2 * (plan.N_tile + kPad) + plan.heads * plan.P_tile + kPad) +
                           plan.heads * plan.P_tile * (plan.N_tile + kPad);
  const int64_t bytes = elements * sizeof(T) + plan.heads * sizeof(Decays);
  const int threads = plan.heads > 1 ? 256 : 128;
  with_p_tile(plan, [&](auto P) {
    const auto kernel = output_kernel<T, decltype(P)::value>;
    allow_shared_memory(kernel, bytes);
    kernel<<<plan.grid(), threads, bytes, stream>>>(plan, in, states, y);
  });
  check_launch("ssd_forward", plan.text());
}

#define HAX_INSTANTIATE(T)                                                                        \
  template int64_t ssd_state_elements<T>(const Layout&, const SsdShape&);                         \
  template int64_t ssd_forward_scratch_bytes<T>(const Layout&, const SsdShape&);                  \
  template void ssd_forward<T>(const Layout&, const SsdShape&, const SsdInput<T>&, T*, T*, void*, \
                               cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
