// Blocks walk their share of the rows (lib/ops/cuda/row_teams.cuh), the next row of a team on its way while
// one is at work. In the backward pass a block leaves one partial sum of the gradients of weight and E.
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/gate.h"
#include "lib/ops/cuda/row_teams.cuh"

namespace hax::ops::cuda {
namespace {

static_assert(kGateWidest <= kWidestTeam);
// Blocks of a multiprocessor, as registers allow.
constexpr int kForwardBlocks = 4, kBackwardBlocks = 2;

template <class T, class RowTeam>
struct Inputs {
  typename RowTeam::template Held<T> y, z, O;
  // Zeros where there is no such row.
  __device__ __forceinline__ void load(const RowTeam& team, const GateShape& shape, const GateInput<T>& in,
                                       int row) {
    const int d = row < shape.rows ? static_cast<int>(shape.d) : 0;
    team.load(y, in.y, row, d);
    team.load(z, in.z, row, d);
    if (in.O.data) team.load(O, in.O, row, d);
  }
};

template <class T, class RowTeam>
__global__ void __launch_bounds__(kTeamThreads, kForwardBlocks)
    forward_kernel(GateShape shape, GateInput<T> in, T* __restrict__ out) {
  const RowTeam team;
  const int d = static_cast<int>(shape.d), rows = static_cast<int>(shape.rows);
  const int step = static_cast<int>(gridDim.x) * RowTeam::kTeams;
  int first = static_cast<int>(blockIdx.x) * RowTeam::kTeams;
  Inputs<T, RowTeam> next;
  next.load(team, shape, in, first + team.team);
  float E[kHeld], w[kHeld];
  if (in.O.data) team.load_parameter(E, in.E, d);
  if (in.weight) team.load_parameter(w, in.weight, d);
  const float mean_of = 1.0f / static_cast<float>(d);
  for (; first < rows; first += step) {
    const int row = first + team.team;
    const Inputs<T, RowTeam> at = next;
    next.load(team, shape, in, row + step);
    float u[kHeld], square = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const float z = at.z.get(i);
      u[i] = at.y.get(i);
      if (in.O.data) u[i] += at.O.get(i) * E[i];
      u[i] *= z * sigmoid(z);
      square += u[i] * u[i];
    }
    if (in.weight) {
      const float scale = rsqrtf(team.sum(square, 0.0f).x * mean_of + shape.eps);
#pragma unroll
      for (int i = 0; i < kHeld; ++i) u[i] *= scale * w[i];
    }
    if (row < rows) team.store(Rows<T>{out, shape.d}, row, d, u);
  }
}

// With v = y + O E, s = SiLU(z), u = v s and r = 1 / rms(u), or du = upstream without a norm:
//   du = r (w upstream) - u r^3 mean(u w upstream);   dy = s du;   dz = v SiLU'(z) du;   dO = E dy.
// out.parts (blocks, 2, d): of weight and E.
template <class T, class RowTeam>
__global__ void __launch_bounds__(kTeamThreads, kBackwardBlocks)
    backward_kernel(GateShape shape, GateInput<T> in, Rows<const T> upstream, GateGradient<T> out) {
  extern __shared__ float shared[];  // (teams, d)
  const RowTeam team;
  const int d = static_cast<int>(shape.d), rows = static_cast<int>(shape.rows);
  const bool normed = in.weight, branched = in.O.data;
  const int step = static_cast<int>(gridDim.x) * RowTeam::kTeams;
  int first = static_cast<int>(blockIdx.x) * RowTeam::kTeams;
  Inputs<T, RowTeam> next;
  typename RowTeam::template Held<T> next_g;
  const auto load = [&](int row) {
    next.load(team, shape, in, row);
    team.load(next_g, upstream, row, row < rows ? d : 0);
  };
  load(first + team.team);
  float w[kHeld], E[kHeld], dw[kHeld], dE[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) dw[i] = dE[i] = w[i] = E[i] = 0.0f;
  if (normed) team.load_parameter(w, in.weight, d);
  if (branched) team.load_parameter(E, in.E, d);
  const float mean_of = 1.0f / static_cast<float>(d);
  for (; first < rows; first += step) {
    const int row = first + team.team;
    const Inputs<T, RowTeam> at = next;
    const auto g = next_g;
    load(row + step);
    float v[kHeld], gate[kHeld], square = 0.0f, dot = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const float z = at.z.get(i);
      v[i] = at.y.get(i);
      if (branched) v[i] += at.O.get(i) * E[i];
      gate[i] = sigmoid(z);
      const float u = v[i] * z * gate[i];
      square += u * u;
      dot += g.get(i) * w[i] * u;
    }
    float scale = 1.0f, pull = 0.0f;
    if (normed) {
      const float2 sums = team.sum(square, dot);
      // 1: finite for the zeros behind the last row, eps or not.
      scale = rsqrtf(sums.x * mean_of + (row < rows ? shape.eps : 1.0f));
      pull = sums.y * mean_of * scale * scale * scale;
    }
    float dz[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const float s = at.z.get(i) * gate[i], u = v[i] * s;
      float du = g.get(i);
      if (normed) {
        dw[i] += du * u * scale;
        du = du * w[i] * scale - u * pull;
      }
      dz[i] = du * v[i] * (gate[i] + s * (1.0f - gate[i]));
      v[i] = du * s;
    }
    const int stored = row < rows ? d : 0;
    team.store(out.dy, row, stored, v);
    team.store(out.dz, row, stored, dz);
    if (!branched) continue;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      dE[i] += v[i] * at.O.get(i);
      v[i] *= E[i];
    }
    team.store(out.dO, row, stored, v);
  }
  float* part = out.parts + static_cast<int64_t>(blockIdx.x) * 2 * d;
  team.sum_of_teams(dw, shared, d, part);
  team.sum_of_teams(dE, shared, d, part + d);
}

int64_t blocks_of(const GateShape& shape, int at_once) { return team_blocks(shape.rows, shape.d, at_once); }

std::string shape_text(const GateShape& shape) {
  return "rows " + std::to_string(shape.rows) + ", d " + std::to_string(shape.d);
}

template <class T>
constexpr int kWidest = 16 / sizeof(T);  // numbers of a vector

// Calls f with a team for rows that can be cut into vectors of `vector`.
template <class T, class F>
void with_vector(int64_t d, int vector, const F& f) {
  if (vector == kWidest<T>) return with_team<kWidest<T>>(d, f);
  if (vector == 4) return with_team<4>(d, f);
  with_team<1>(d, f);
}

}  // namespace

template <class T>
void gate_forward(const GateShape& shape, const GateInput<T>& in, T* out, cudaStream_t stream) {
  const int vector = widest_vector<T>(kWidest<T>, shape.d, {in.y, in.z, in.O, {out, shape.d}});
  const auto blocks = static_cast<unsigned>(blocks_of(shape, kForwardBlocks));
  with_vector<T>(shape.d, vector, [&](auto team) {
    forward_kernel<T, typename decltype(team)::Type><<<blocks, kTeamThreads, 0, stream>>>(shape, in, out);
  });
  check_launch("gate_forward", shape_text(shape));
}

int64_t gate_parts_floats(const GateShape& shape) { return blocks_of(shape, kBackwardBlocks) * 2 * shape.d; }

template <class T>
void gate_backward(const GateShape& shape, const GateInput<T>& in, Rows<const T> upstream,
                   const GateGradient<T>& out, cudaStream_t stream) {
  const auto read = [](Rows<T> rows) { return Rows<const T>{rows.data, rows.stride}; };
  const int vector = widest_vector<T>(kWidest<T>, shape.d,
                                      {in.y, in.z, in.O, upstream, read(out.dy), read(out.dz), read(out.dO)});
  const auto blocks = static_cast<unsigned>(blocks_of(shape, kBackwardBlocks));
  with_vector<T>(shape.d, vector, [&](auto team) {
    using Of = typename decltype(team)::Type;
    backward_kernel<T, Of>
        <<<blocks, kTeamThreads, Of::kTeams * shape.d * sizeof(float), stream>>>(shape, in, upstream, out);
  });
  check_launch("gate_backward", shape_text(shape));
}

void gate_sums(const GateShape& shape, const float* parts, float* sums, cudaStream_t stream) {
  column_sums("gate_backward's sums", parts, blocks_of(shape, kBackwardBlocks), 2 * shape.d, sums, stream);
}

#define HAX_INSTANTIATE(T)                                                                \
  template void gate_forward<T>(const GateShape&, const GateInput<T>&, T*, cudaStream_t); \
  template void gate_backward<T>(const GateShape&, const GateInput<T>&, Rows<const T>,    \
                                 const GateGradient<T>&, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
