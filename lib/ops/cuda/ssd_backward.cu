// Backward: gradients of the states are summed and carried like the states themselves, from the end to the
// beginning; then each chunk's gradients follow by themselves. With dS the gradient of the state that leaves
// the chunk, e and w the decays from its start and to its end, and dM = dy (dt x)^T:
//   d(dt x) = M^T dy + w o (B dS)         M = C B^T o L
//   dC = (dM o L) B + e o (dy S_in^T)     dB = (dM o L)^T C + w o (dt x) dS^T
//   da_t = sum over i >= t of (row_i - column_i) + sum over j < t of leaving_j + e_q <S_in, dS>, inside t's
//   sequence:
//     row_i = sum_j (dM o M)_ij + e_i dy_i . (C_i S_in),  column_j = sum_i (dM o M)_ij,
//     leaving_j = w_j (dt x)_j . (B_j dS).
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/ssd_row_sums.cuh"
#include "lib/ops/cuda/ssd_sums.cuh"
#include "lib/ops/cuda/ssd_walk.h"

namespace hax::ops::cuda {
namespace {

constexpr int kSquare = kChunk + 4;  // row of dCB in shared memory

struct Sizes {
  int key_elements, row_elements, state_elements;
  __host__ __device__ explicit Sizes(const SsdPlan& plan)
      : key_elements(kChunk * (plan.N_tile + kPad)),
        row_elements(kChunk * (plan.heads * plan.P_tile + kPad)),
        state_elements(plan.P_tile * (plan.N_tile + kPad)) {}
  template <class T>
  int64_t bytes(const SsdPlan& plan) const {
    return 2 * (key_elements + row_elements + plan.heads * state_elements) * sizeof(T) +
           plan.heads * (sizeof(Decays) + sizeof(RowSums<T>)) + kChunk * kSquare * sizeof(float);
  }
};

// Eight warps: rows 16 (warp % 4) .. of the heads of parity warp / 4. parts (chunks, 3, H): of dA, dD,
// ddt_bias. Out: T, or float where several blocks share a group; dB and dC are then (parts, rows, G * N).
template <class T, int P, class Out>
__global__ void __launch_bounds__(256, sizeof(T) == 2 && P <= 32 ? 2 : 1)
    gradient_kernel(SsdPlan plan, SsdInput<T> in, Rows<const T> upstream, const T* __restrict__ states,
                    const T* __restrict__ dstates, Rows<T> dx, T* __restrict__ ddt, Rows<Out> dB,
                    Rows<Out> dC, float* __restrict__ parts) {
  extern __shared__ uint4 shared[];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int N = plan.N_tile, first_head = blockIdx.y * plan.heads;
  const int block_in_group = blockIdx.y % plan.parts, group = blockIdx.y / plan.parts;
  const int stride = plan.heads * P + kPad, key_stride = N + kPad;
  const Sizes sizes(plan);
  T* C = reinterpret_cast<T*>(shared);
  T* B = C + sizes.key_elements;
  T* x = B + sizes.key_elements;
  T* dy = x + sizes.row_elements;
  T* S = dy + sizes.row_elements;
  T* dS = S + plan.heads * sizes.state_elements;
  float* dCB = reinterpret_cast<float*>(dS + plan.heads * sizes.state_elements);  // (j, i), summed over heads
  Decays* decays = reinterpret_cast<Decays*>(dCB + kChunk * kSquare);
  RowSums<T>* sums = reinterpret_cast<RowSums<T>*>(decays + plan.heads);
  const int entered = span.entered(), tail = span.tail();
  copy_rows(C, in.C.data + span.begin * in.C.stride + group * plan.N, in.C.stride, kChunk, span.used, 1,
            plan.N, N);
  copy_rows(B, in.B.data + span.begin * in.B.stride + group * plan.N, in.B.stride, kChunk, span.used, 1,
            plan.N, N);
  copy_rows(x, in.x.data + span.begin * in.x.stride + first_head * plan.P, in.x.stride, kChunk, span.used,
            plan.heads, plan.P, P);
  copy_rows(dy, upstream.data + span.begin * upstream.stride + first_head * plan.P, upstream.stride, kChunk,
            span.used, plan.heads, plan.P, P);
  commit_copies();
  for (int i = 0; i < plan.heads; ++i) {
    if (entered > 0) copy_state(S + i * sizes.state_elements, plan, states, blockIdx.x, first_head + i);
    if (tail < kChunk) copy_state(dS + i * sizes.state_elements, plan, dstates, blockIdx.x, first_head + i);
  }
  commit_copies();
  set_all_decays(decays, plan, in, span, first_head);
  wait_copies<1>();
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, set = threadIdx.x / 128;
  const int g = lane / 4, t = lane % 4, base = 16 * warp;
  const int rows[2] = {base + g, base + g + 8};
  // Row j, column i: B_j . C_i, and the sum over heads of (dM o L)_ij.
  float BC[8][4] = {}, dBC[8][4] = {};
  for (int k = 0; k < N; k += 16) {
    const OperandA<T> a = load_a(B + base * key_stride + k, key_stride, lane);
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      if (i >= 2 * warp) mma(BC[i], BC[i + 1], a, load_two_b(C + 8 * i * key_stride + k, key_stride, lane));
    }
  }
  wait_copies<0>();
  __syncthreads();
  for (int i = set; i < plan.heads; i += 2) {
    const Decays& decay = decays[i];
    const T *own_x = x + base * stride + i * P, *own_dy = dy + base * stride + i * P;
    float own[2] = {0.0f, 0.0f}, leaving[2] = {0.0f, 0.0f};
    float dxt[P / 8][4] = {};  // d(dt x)
    if (base < entered) {
      const T* state = S + i * sizes.state_elements;
      for (int k = 0; k < N; k += 16) {
        const OperandA<T> a = load_a(C + base * key_stride + k, key_stride, lane);
#pragma unroll
        for (int n = 0; n < P / 8; n += 2) {
          mma(dxt[n], dxt[n + 1], a, load_two_b(state + 8 * n * key_stride + k, key_stride, lane));
        }
      }
      const float2 dot = dot_rows<T, P>(dxt, own_dy, stride, g, t);
      own[0] = rows[0] < entered ? decay.from_start(rows[0]) * dot.x : 0.0f;
      own[1] = rows[1] < entered ? decay.from_start(rows[1]) * dot.y : 0.0f;
#pragma unroll
      for (int n = 0; n < P / 8; ++n) dxt[n][0] = dxt[n][1] = dxt[n][2] = dxt[n][3] = 0.0f;
    }
    if (base + 15 >= tail) {
      const T* dstate = dS + i * sizes.state_elements;
      for (int k = 0; k < N; k += 16) {
        const OperandA<T> a = load_a(B + base * key_stride + k, key_stride, lane);
#pragma unroll
        for (int n = 0; n < P / 8; n += 2) {
          mma(dxt[n], dxt[n + 1], a, load_two_b(dstate + 8 * n * key_stride + k, key_stride, lane));
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float w = rows[r] >= tail ? decay.to_end(rows[r]) : 0.0f;
#pragma unroll
        for (int n = 0; n < P / 8; ++n) {
          dxt[n][2 * r] *= w;
          dxt[n][2 * r + 1] *= w;
        }
      }
      const float2 dot = dot_rows<T, P>(dxt, own_x, stride, g, t);
      leaving[0] = decay.dt[rows[0]] * dot.x;
      leaving[1] = decay.dt[rows[1]] * dot.y;
    }
    const float dt[2] = {decay.dt[rows[0]], decay.dt[rows[1]]};
    Sum<T> column[2] = {};
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      if (block < warp) continue;
      float dM[2][4] = {};  // row j, column i
#pragma unroll
      for (int k = 0; k < P; k += 16) {
        const OperandA<T> a = load_a(own_x + k, stride, lane);
        mma(dM[0], dM[1], a, load_two_b(dy + 16 * block * stride + i * P + k, stride, lane));
      }
      WideA<T> M;
      Sum<T> pair_sums[4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int tile = 2 * block + half;
        const int columns[2] = {16 * block + 8 * half + 2 * t, 16 * block + 8 * half + 2 * t + 1};
        const int first[2] = {span.first(columns[0]), span.first(columns[1])};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float m[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const bool reached = rows[r] <= columns[e] && rows[r] >= first[e];
            const float L = reached ? exp2_fast(decay.between(columns[e], rows[r])) : 0.0f;
            m[e] = BC[tile][2 * r + e] * L;
            const float d = dM[half][2 * r + e] * dt[r];
            const float pair = rows[r] < columns[e] ? d * m[e] : 0.0f;
            column[r] += pair;
            pair_sums[2 * half + e] += pair;
            dBC[tile][2 * r + e] += d * L;
          }
          M.set(2 * half + r, m[0], m[1]);
        }
      }
#pragma unroll
      for (int n = 0; n < P / 8; n += 2) {
        mma(dxt[n], dxt[n + 1], M,
            load_two_b_transposed(dy + 16 * block * stride + i * P + 8 * n, stride, lane));
      }
      const Sum<T> sum = sum_of_rows(pair_sums, lane);
      if (lane / 4 % 2 == 0) {
        sums[i].pairs[warp][16 * block + lane / 16 * 8 + 2 * t + lane / 8 % 2] = sum;
      }
    }
    if (span.leaves && span.starts == 0) {
      const float part = dot_states(S + i * sizes.state_elements, dS + i * sizes.state_elements, P, N,
                                    threadIdx.x % 128, 128);
      const float sum = warp_sum(part);
      if (lane == 0) sums[i].through[warp] = sum;
    }
    const float2 step = dot_rows<T, P>(dxt, own_x, stride, g, t);
    const float D = in.D[first_head + i];
    float skip[2] = {0.0f, 0.0f};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = span.begin + rows[r];
#pragma unroll
      for (int n = 0; n < P / 8; ++n) {
        const int p = 8 * n + 2 * t, at = (g + 8 * r) * stride + p;
        const float2 up = load_pair(own_dy + at), in_x = load_pair(own_x + at);
        skip[r] += up.x * in_x.x + up.y * in_x.y;
        if (row < plan.layout.rows) {
          store_pair(dx.data + row * dx.stride + (first_head + i) * plan.P, p, plan.P,
                     dt[r] * dxt[n][2 * r] + D * up.x, dt[r] * dxt[n][2 * r + 1] + D * up.y);
        }
      }
      const float total_leaving = quad_sum(leaving[r]);
      const Sum<T> total_own = quad_sum(own[r] - column[r]);
      const float total_step = quad_sum(r == 0 ? step.x : step.y), total_skip = quad_sum(skip[r]);
      if (t == 0) {
        sums[i].own[rows[r]] = total_own;
        sums[i].leaving[rows[r]] = total_leaving;
        sums[i].step[rows[r]] = total_step;
        sums[i].skip[rows[r]] = total_skip;
      }
    }
  }
  // dCB: the second set's sums, then the first's on top.
  for (int turn = 1; turn >= 0; --turn) {
    if (set == turn) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float2* at = reinterpret_cast<float2*>(dCB + rows[r] * kSquare + 8 * i + 2 * t);
          float2 value = make_float2(dBC[i][2 * r], dBC[i][2 * r + 1]);
          if (turn == 0) {
            value.x += at->x;
            value.y += at->y;
          }
          *at = value;
        }
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x / 32; i < plan.heads; i += 8) {
    finish_head(plan, span, sums[i], decays[i], in.A[first_head + i], first_head + i, ddt, parts);
  }
  // dB by the first four warps, dC by the others. dB_j sums over i >= j, dC_i over j <= i.
  const bool is_dB = set == 0;
  const Rows<Out>& to = is_dB ? dB : dC;
  Out* out = to.data + block_in_group * plan.layout.rows * to.stride + group * plan.N;
  const bool carries = is_dB ? base + 15 >= tail : base < entered;
  constexpr int kTiles = 4;
  for (int n0 = 0; n0 < N; n0 += 8 * kTiles) {
    float sum[kTiles][4] = {};
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      if (is_dB ? block < warp : block > warp) continue;
      WideA<T> a;
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const int row = rows[pair % 2], k = 16 * block + pair / 2 * 8 + 2 * t;
        if (is_dB)
          a.set(pair, dCB[row * kSquare + k], dCB[row * kSquare + k + 1]);
        else
          a.set(pair, dCB[k * kSquare + row], dCB[(k + 1) * kSquare + row]);
      }
      const T* other = (is_dB ? C : B) + 16 * block * key_stride + n0;
#pragma unroll
      for (int n = 0; n < kTiles; n += 2) {
        if (n0 + 8 * n < N)
          mma(sum[n], sum[n + 1], a, load_two_b_transposed(other + 8 * n, key_stride, lane));
      }
    }
    if (carries) {
      for (int i = 0; i < plan.heads; ++i) {
        const Decays& decay = decays[i];
        float scale[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          scale[r] = is_dB ? (rows[r] >= tail ? decay.to_end(rows[r]) * decay.dt[rows[r]] : 0.0f)
                           : (rows[r] < entered ? decay.from_start(rows[r]) : 0.0f);
        }
        const T* state = (is_dB ? dS : S) + i * sizes.state_elements + n0;
        float product[kTiles][4] = {};
#pragma unroll
        for (int k = 0; k < P; k += 16) {
          const OperandA<T> a = load_a((is_dB ? x : dy) + base * stride + i * P + k, stride, lane);
#pragma unroll
          for (int n = 0; n < kTiles; n += 2) {
            if (n0 + 8 * n >= N) continue;
            mma(product[n], product[n + 1], a,
                load_two_b_transposed(state + k * key_stride + 8 * n, key_stride, lane));
          }
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int c = 0; c < 4; ++c) sum[n][c] += scale[c / 2] * product[n][c];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = span.begin + rows[r];
      if (row >= plan.layout.rows) continue;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        store_pair(out + row * to.stride, n0 + 8 * n + 2 * t, plan.N, sum[n][2 * r], sum[n][2 * r + 1]);
      }
    }
  }
}

// The scratch's parts, each beginning at a multiple of 16 bytes.
template <class T>
struct Scratch {
  explicit Scratch(const SsdPlan& plan)
      : dstates(aligned(ssd_carry_floats<T>(plan) * 4)),
        heads(dstates + aligned(plan.chunks * plan.H * plan.state_size() * static_cast<int64_t>(sizeof(T)))),
        key_parts(heads + aligned(plan.chunks * 3 * plan.H * 4)),
        bytes(key_parts + ssd_key_parts_bytes(plan)) {}
  static int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }
  int64_t dstates, heads, key_parts, bytes;  // the sums that are carried come first
};

}  // namespace

template <class T>
int64_t ssd_backward_scratch_bytes(const Layout& layout, const SsdShape& shape) {
  if (ssd_walks<T>(layout, shape)) return ssd_walk_backward_scratch_bytes(layout, shape);
  return Scratch<T>(ssd_plan_of<T>(layout, shape)).bytes;
}

template <class T>
void ssd_backward(const Layout& layout, const SsdShape& shape, const SsdInput<T>& in, const T* states,
                  Rows<const T> dy, const SsdGradient<T>& out, void* scratch, cudaStream_t stream) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (ssd_walks<T>(layout, shape)) {
      return ssd_walk_backward(layout, shape, in, states, dy, out, scratch, stream);
    }
  }
  const SsdPlan plan = ssd_plan_of<T>(layout, shape);
  const Scratch<T> places(plan);
  char* memory = static_cast<char*>(scratch);
  T* dstates = reinterpret_cast<T*>(memory + places.dstates);
  float* heads = reinterpret_cast<float*>(memory + places.heads);
  float* key_parts = reinterpret_cast<float*>(memory + places.key_parts);
  ssd_carry<T, SsdDirection::backward>(plan, in, dy, static_cast<float*>(scratch), dstates, stream);
  const int64_t bytes = Sizes(plan).bytes<T>(plan);
  with_p_tile(plan, [&](auto P) {
    with_key_gradients<T>(plan, out, key_parts, [&](auto dB, auto dC) {
      const auto kernel = gradient_kernel<T, decltype(P)::value, std::decay_t<decltype(*dB.data)>>;
      allow_shared_memory(kernel, bytes);
      kernel<<<plan.grid(), 256, bytes, stream>>>(plan, in, dy, states, dstates, out.dx, out.ddt, dB, dC,
                                                  heads);
    });
  });
  check_launch("ssd_backward", plan.text());
  column_sums("ssd_backward's sums by head", heads, plan.chunks, 3 * plan.H, out.by_head, stream);
  sum_key_parts(plan, key_parts, out, stream);
}

#define HAX_INSTANTIATE(T)                                                                                   \
  template int64_t ssd_backward_scratch_bytes<T>(const Layout&, const SsdShape&);                            \
  template void ssd_backward<T>(const Layout&, const SsdShape&, const SsdInput<T>&, const T*, Rows<const T>, \
                                const SsdGradient<T>&, void*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
