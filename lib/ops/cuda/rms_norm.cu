// Blocks walk their share of the rows (lib/ops/cuda/row_teams.cuh), the next row of a team on its way while
// one is at work. In the backward pass a block leaves one partial sum of dweight, added up by a second kernel
// in block order.
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/rms_norm.h"
#include "lib/ops/cuda/row_teams.cuh"

namespace hax::ops::cuda {
namespace {

static_assert(kNormWidest <= kWidestTeam);
// Blocks of a multiprocessor, as registers allow.
constexpr int kForwardBlocks = 4, kBackwardBlocks = 2;

template <class RowTeam, class X, class Y>
__global__ void __launch_bounds__(kTeamThreads, kForwardBlocks)
    forward_kernel(NormShape shape, const int64_t* __restrict__ index, Rows<const X> x, Rows<const Y> h,
                   const float* __restrict__ weight, X* __restrict__ sum, Y* __restrict__ y) {
  const RowTeam team;
  const int d = static_cast<int>(shape.d), rows = static_cast<int>(shape.rows);
  const int step = static_cast<int>(gridDim.x) * RowTeam::kTeams;
  int first = static_cast<int>(blockIdx.x) * RowTeam::kTeams;
  typename RowTeam::template Held<X> next_x;
  typename RowTeam::template Held<Y> next_h;
  const auto load = [&](int row) {
    const int from = row >= rows ? -1 : index ? static_cast<int>(index[row]) : row;
    team.load(next_x, x, from, from < 0 ? 0 : d);
    if (h.data) team.load(next_h, h, from, from < 0 ? 0 : d);
  };
  load(first + team.team);
  float w[kHeld];
  team.load_parameter(w, weight, d);
  const float mean_of = 1.0f / static_cast<float>(d);
  for (; first < rows; first += step) {
    const int row = first + team.team, stored = row < rows ? d : 0;
    const auto at = next_x;
    const auto added = next_h;
    load(row + step);
    float u[kHeld], square = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      u[i] = at.get(i);
      if (h.data) u[i] = rounded<X>(u[i] + added.get(i));
      square += u[i] * u[i];
    }
    if (h.data || index) team.store(Rows<X>{sum, d}, row, stored, u);
    const float scale = rsqrtf(team.sum(square, 0.0f).x * mean_of + shape.eps);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) u[i] *= scale * w[i];
    team.store(Rows<Y>{y, d}, row, stored, u);
  }
}

// parts (blocks, d). With r = 1 / rms: du = r (w dy) - u r^3 mean(u w dy), and dsum where it is not null.
template <class RowTeam, class X, class Y>
__global__ void __launch_bounds__(kTeamThreads, kBackwardBlocks)
    backward_kernel(NormShape shape, const int64_t* __restrict__ index, Rows<const X> x,
                    const float* __restrict__ weight, Rows<const Y> dy, Rows<const X> dsum,
                    X* __restrict__ dx, Y* __restrict__ dh, float* __restrict__ parts) {
  extern __shared__ float shared[];  // (teams, d)
  const RowTeam team;
  const int d = static_cast<int>(shape.d), rows = static_cast<int>(shape.rows);
  const int step = static_cast<int>(gridDim.x) * RowTeam::kTeams;
  int first = static_cast<int>(blockIdx.x) * RowTeam::kTeams;
  typename RowTeam::template Held<X> next_x, next_sum;
  typename RowTeam::template Held<Y> next_dy;
  int next_to;  // below 0: a row that nothing goes to
  const auto load = [&](int row) {
    next_to = row >= rows ? -1 : index ? static_cast<int>(index[row]) : row;
    const int there = next_to < 0 ? 0 : d;
    team.load(next_x, x, row, there);
    team.load(next_dy, dy, row, there);
    if (dsum.data) team.load(next_sum, dsum, row, there);
  };
  load(first + team.team);
  float w[kHeld], dw[kHeld] = {};
  team.load_parameter(w, weight, d);
  const float mean_of = 1.0f / static_cast<float>(d);
  for (; first < rows; first += step) {
    const auto u = next_x, other = next_sum;
    const auto upstream = next_dy;
    const int to = next_to;
    load(first + team.team + step);
    float g[kHeld], square = 0.0f, dot = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      g[i] = upstream.get(i);
      square += u.get(i) * u.get(i);
      dot += g[i] * w[i] * u.get(i);
    }
    const float2 sums = team.sum(square, dot);
    // 1: finite for the zeros of a row that counts for nothing, eps or not.
    const float scale = rsqrtf(sums.x * mean_of + (to < 0 ? 1.0f : shape.eps));
    const float pull = sums.y * mean_of * scale * scale * scale;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      dw[i] += g[i] * u.get(i) * scale;
      g[i] = g[i] * w[i] * scale - u.get(i) * pull;
      if (dsum.data) g[i] += other.get(i);
    }
    const int stored = to < 0 ? 0 : d;
    team.store(Rows<X>{dx, d}, to, stored, g);
    if (dh) team.store(Rows<Y>{dh, d}, to, stored, g);
  }
  team.sum_of_teams(dw, shared, d, parts + static_cast<int64_t>(blockIdx.x) * d);
}

int64_t backward_blocks(const NormShape& shape) { return team_blocks(shape.rows, shape.d, kBackwardBlocks); }

std::string shape_text(const NormShape& shape) {
  return "rows " + std::to_string(shape.rows) + ", d " + std::to_string(shape.d);
}

// Calls f with a team for rows that can be cut into vectors of `vector`, which is even.
template <class F>
void with_vector(int64_t d, int vector, const F& f) {
  if (vector == kHeld) return with_team<kHeld>(d, f);
  with_team<2>(d, f);
}

}  // namespace

template <class X, class Y>
void norm_forward(const NormShape& shape, const int64_t* index, Rows<const X> x, Rows<const Y> h,
                  const float* weight, X* sum, Y* y, cudaStream_t stream) {
  const int vector = std::min(widest_vector<X>(kHeld, shape.d, {x, {sum, shape.d}}),
                              widest_vector<Y>(kHeld, shape.d, {h, {y, shape.d}}));
  const auto blocks = static_cast<unsigned>(team_blocks(shape.rows, shape.d, kForwardBlocks));
  with_vector(shape.d, vector, [&](auto team) {
    forward_kernel<typename decltype(team)::Type, X, Y>
        <<<blocks, kTeamThreads, 0, stream>>>(shape, index, x, h, weight, sum, y);
  });
  check_launch("norm_forward", shape_text(shape));
}

int64_t norm_parts_floats(const NormShape& shape) { return backward_blocks(shape) * shape.d; }

template <class X, class Y>
void norm_backward(const NormShape& shape, const int64_t* index, Rows<const X> x, const float* weight,
                   Rows<const Y> dy, Rows<const X> dsum, X* dx, Y* dh, float* parts, cudaStream_t stream) {
  const int vector = std::min(widest_vector<X>(kHeld, shape.d, {x, dsum, {dx, shape.d}}),
                              widest_vector<Y>(kHeld, shape.d, {dy, {dh, shape.d}}));
  const auto blocks = static_cast<unsigned>(backward_blocks(shape));
  with_vector(shape.d, vector, [&](auto team) {
    using Of = typename decltype(team)::Type;
    backward_kernel<Of, X, Y><<<blocks, kTeamThreads, Of::kTeams * shape.d * sizeof(float), stream>>>(
        shape, index, x, weight, dy, dsum, dx, dh, parts);
  });
  check_launch("norm_backward", shape_text(shape));
}

void norm_sums(const NormShape& shape, const float* parts, float* dweight, cudaStream_t stream) {
  column_sums("norm_backward's sums", parts, backward_blocks(shape), shape.d, dweight, stream);
}

#define HAX_INSTANTIATE(X, Y)                                                                      \
  template void norm_forward<X, Y>(const NormShape&, const int64_t*, Rows<const X>, Rows<const Y>, \
                                   const float*, X*, Y*, cudaStream_t);                            \
  template void norm_backward<X, Y>(const NormShape&, const int64_t*, Rows<const X>, const float*, \
                                    Rows<const Y>, Rows<const X>, X*, Y*, float*, cudaStream_t);
HAX_INSTANTIATE(float, float)
HAX_INSTANTIATE(float, __nv_bfloat16)
HAX_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
