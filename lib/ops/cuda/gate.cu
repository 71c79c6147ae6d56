// A row belongs to a team of W warps, each lane holding N times V neighbouring features in registers. In the
// backward pass a block walks its share of the rows and leaves one partial sum of the gradients of weight and
// E.
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/gate.h"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int64_t kMaxBlocks = 528;  // of the backward pass: 4 a multiprocessor

// How a row is spread: feature of value i of a lane.
template <int W, int N, int V>
struct Team {
  static constexpr int kTeams = kWarps / W, kValues = N * V;
  struct Tag {
    using Type = Team;
  };
  int lane, team;
  __device__ Team() : lane(threadIdx.x % (32 * W)), team(threadIdx.x / (32 * W)) {}
  __device__ int feature(int n) const { return (n * 32 * W + lane) * V; }

  // The sums of a and b over the team. All threads of the block call it.
  __device__ __forceinline__ float2 sum(float a, float b) const {
    float2 sums = make_float2(warp_sum(a), warp_sum(b));
    if constexpr (W > 1) {
      __shared__ float2 parts[kWarps];
      __syncthreads();
      if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sums;
      __syncthreads();
      sums = make_float2(0.0f, 0.0f);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        sums.x += parts[team * W + w].x;
        sums.y += parts[team * W + w].y;
      }
    }
    return sums;
  }
  template <class T>
  __device__ __forceinline__ void load_row(float (&to)[kValues], const T* row, int d) const {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (feature(n) < d) {
        load_vector<V>(to + n * V, row + feature(n));
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) to[n * V + v] = 0.0f;
      }
    }
  }
  // Parameters lie anywhere.
  __device__ __forceinline__ void load_parameter(float (&to)[kValues], const float* from, int d) const {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const int c = feature(i / V) + i % V;
      to[i] = c < d ? from[c] : 0.0f;
    }
  }
  template <class T>
  __device__ __forceinline__ void store_row(T* row, const float (&from)[kValues], int d) const {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (feature(n) < d) store_vector<V>(row + feature(n), from + n * V);
    }
  }
};

template <class T, class RowTeam>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(GateShape shape, GateInput<T> in, T* __restrict__ out) {
  const RowTeam team;
  constexpr int kValues = RowTeam::kValues;
  const int d = static_cast<int>(shape.d);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * RowTeam::kTeams + team.team;
  const int64_t from = row < shape.rows ? row : shape.rows - 1;
  float u[kValues], z[kValues];
  team.load_row(u, in.y.data + from * in.y.stride, d);
  team.load_row(z, in.z.data + from * in.z.stride, d);
  if (in.O.data) {
    float O[kValues], E[kValues];
    team.load_row(O, in.O.data + from * in.O.stride, d);
    team.load_parameter(E, in.E, d);
#pragma unroll
    for (int i = 0; i < kValues; ++i) u[i] += O[i] * E[i];
  }
  float square = 0.0f;
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    u[i] *= z[i] * sigmoid(z[i]);
    square += u[i] * u[i];
  }
  if (in.weight) {
    float w[kValues];
    team.load_parameter(w, in.weight, d);
    const float scale = rsqrtf(team.sum(square, 0.0f).x / static_cast<float>(d) + shape.eps);
#pragma unroll
    for (int i = 0; i < kValues; ++i) u[i] *= scale * w[i];
  }
  if (row < shape.rows) team.store_row(out + row * shape.d, u, d);
}

// With v = y + O E, s = SiLU(z), u = v s and r = 1 / rms(u), or du = upstream without a norm:
//   du = r (w upstream) - u r^3 mean(u w upstream);   dy = s du;   dz = v SiLU'(z) du;   dO = E dy.
// out.parts (blocks, 2, d): of weight and E.
template <class T, class RowTeam>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(GateShape shape, GateInput<T> in, Rows<const T> upstream, GateGradient<T> out) {
  extern __shared__ float shared[];  // (teams, d)
  const RowTeam team;
  constexpr int kValues = RowTeam::kValues, kTeams = RowTeam::kTeams;
  const int d = static_cast<int>(shape.d);
  const bool normed = in.weight, branched = in.O.data;
  float w[kValues], E[kValues], dw[kValues], dE[kValues];
#pragma unroll
  for (int i = 0; i < kValues; ++i) dw[i] = dE[i] = w[i] = E[i] = 0.0f;
  if (normed) team.load_parameter(w, in.weight, d);
  if (branched) team.load_parameter(E, in.E, d);
  const float mean_of = 1.0f / static_cast<float>(d);
  // Whole teams step out together, so that rows behind the last are walked by nobody.
  const int64_t step = static_cast<int64_t>(gridDim.x) * kTeams;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kTeams; first < shape.rows; first += step) {
    const bool there = first + team.team < shape.rows;
    const int64_t row = there ? first + team.team : first;
    float v[kValues], z[kValues], O[kValues], g[kValues], gate[kValues];
    team.load_row(v, in.y.data + row * in.y.stride, d);
    team.load_row(z, in.z.data + row * in.z.stride, d);
    if (branched) team.load_row(O, in.O.data + row * in.O.stride, d);
    team.load_row(g, upstream.data + row * upstream.stride, d);
    if (!there) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) g[i] = 0.0f;
    }
    float square = 0.0f, dot = 0.0f;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      if (branched) v[i] += O[i] * E[i];
      gate[i] = sigmoid(z[i]);
      const float u = v[i] * z[i] * gate[i];
      square += u * u;
      dot += g[i] * w[i] * u;
    }
    float scale = 1.0f, pull = 0.0f;
    if (normed) {
      const float2 sums = team.sum(square, dot);
      scale = rsqrtf(sums.x * mean_of + shape.eps);
      pull = sums.y * mean_of * scale * scale * scale;
    }
    float dz[kValues];
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const float s = z[i] * gate[i], u = v[i] * s;
      float du = g[i];
      if (normed) {
        dw[i] += g[i] * u * scale;
        du = g[i] * w[i] * scale - u * pull;
      }
      dz[i] = du * v[i] * (gate[i] + s * (1.0f - gate[i]));
      v[i] = du * s;
    }
    if (there) {
      team.store_row(out.dy.data + row * out.dy.stride, v, d);
      team.store_row(out.dz.data + row * out.dz.stride, dz, d);
    }
    if (!branched) continue;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      dE[i] += v[i] * O[i];
      v[i] *= E[i];
    }
    if (there) team.store_row(out.dO.data + row * out.dO.stride, v, d);
  }
#pragma unroll
  for (int of = 0; of < 2; ++of) {
    __syncthreads();
    team.store_row(shared + team.team * d, of == 0 ? dw : dE, d);
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += kThreads) {
      float sum = 0.0f;
      for (int k = 0; k < kTeams; ++k) sum += shared[k * d + c];
      out.parts[(static_cast<int64_t>(blockIdx.x) * 2 + of) * d + c] = sum;
    }
  }
}

int64_t backward_blocks(const GateShape& shape) {
  const int64_t blocks = ceil_div(shape.rows, kWarps);
  return blocks < kMaxBlocks ? blocks : kMaxBlocks;
}

std::string shape_text(const GateShape& shape) {
  return "rows " + std::to_string(shape.rows) + ", d " + std::to_string(shape.d);
}

// V features at once where every row begins at a multiple of them.
template <class T>
bool in_fours(int64_t d, std::initializer_list<Rows<const T>> all) {
  bool fits = d % 4 == 0;
  for (const auto& rows : all) {
    fits &= rows.stride % 4 == 0 && reinterpret_cast<uintptr_t>(rows.data) % (4 * sizeof(T)) == 0;
  }
  return fits;
}

// Calls f with a team that holds a row.
template <class F>
void with_team(int64_t d, bool fours, const F& f) {
  if (fours && d <= 128) return f(Team<1, 1, 4>::Tag());
  if (fours && d <= 256) return f(Team<1, 2, 4>::Tag());
  if (fours && d <= 512) return f(Team<4, 1, 4>::Tag());
  if (fours) return f(Team<8, 2, 4>::Tag());
  if (d <= 256) return f(Team<1, 8, 1>::Tag());
  f(Team<8, 8, 1>::Tag());
}

}  // namespace

template <class T>
void gate_forward(const GateShape& shape, const GateInput<T>& in, T* out, cudaStream_t stream) {
  with_team(shape.d, in_fours<T>(shape.d, {in.y, in.z, in.O}), [&](auto team) {
    using Of = typename decltype(team)::Type;
    const auto blocks = static_cast<unsigned>(ceil_div(shape.rows, Of::kTeams));
    forward_kernel<T, Of><<<blocks, kThreads, 0, stream>>>(shape, in, out);
  });
  check_launch("gate_forward", shape_text(shape));
}

int64_t gate_parts_floats(const GateShape& shape) { return backward_blocks(shape) * 2 * shape.d; }

template <class T>
void gate_backward(const GateShape& shape, const GateInput<T>& in, Rows<const T> upstream,
                   const GateGradient<T>& out, cudaStream_t stream) {
  const auto read = [](Rows<T> rows) { return Rows<const T>{rows.data, rows.stride}; };
  const bool fours =
      in_fours<T>(shape.d, {in.y, in.z, in.O, upstream, read(out.dy), read(out.dz), read(out.dO)});
  const auto blocks = static_cast<unsigned>(backward_blocks(shape));
  with_team(shape.d, fours, [&](auto team) {
    using Of = typename decltype(team)::Type;
    backward_kernel<T, Of>
        <<<blocks, kThreads, Of::kTeams * shape.d * sizeof(float), stream>>>(shape, in, upstream, out);
  });
  check_launch("gate_backward", shape_text(shape));
}

void gate_sums(const GateShape& shape, const float* parts, float* sums, cudaStream_t stream) {
  column_sums("gate_backward's sums", parts, backward_blocks(shape), 2 * shape.d, sums, stream);
}

#define HAX_INSTANTIATE(T)                                                                \
  template void gate_forward<T>(const GateShape&, const GateInput<T>&, T*, cudaStream_t); \
  template void gate_backward<T>(const GateShape&, const GateInput<T>&, Rows<const T>,    \
                                 const GateGradient<T>&, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
