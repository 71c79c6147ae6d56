#include "lib/ops/cpu/ssd_chunk.h"

namespace hax::cpu {
namespace {

// Enough tasks to share out evenly among a few threads; more would give up shared work.
constexpr int64_t kTasksWanted = 8;

}  // namespace

SsdPlan::SsdPlan(const int64_t* offsets, int64_t batch, int64_t H, int64_t P, int64_t G, int64_t N)
    : offsets(offsets),
      batch(batch),
      H(H),
      P(P),
      G(G),
      N(N),
      heads_per_task(H / G),
      first_chunk(batch + 1, 0) {
  while (heads_per_task > 1 && (tasks() < kTasksWanted || H / G % heads_per_task != 0)) --heads_per_task;
  for (int64_t b = 0; b < batch; ++b) {
    first_chunk[b + 1] = first_chunk[b] + (offsets[b + 1] - offsets[b] + kChunk - 1) / kChunk;
  }
}

int64_t SsdPlan::state_floats() const { return first_chunk[batch] * H * N * padded(P); }

void ssd_forward(const SsdPlan& plan, const SsdInput& in, float* y, float* states, int64_t begin,
                 int64_t end) {
  const int64_t H = plan.H, P = plan.P, N = plan.N, heads = plan.heads_per_task;
  GroupChunk group(N);
  HeadChunk head(P);
  const int64_t width = head.width, state_size = N * width;
  std::vector<float> running(heads * state_size), local_y(kChunk * width);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / (H / heads), first_head = task % (H / heads) * heads;
    const int64_t chunks = plan.first_chunk[b + 1] - plan.first_chunk[b];
    std::fill(running.begin(), running.end(), 0.0f);
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t token = plan.offsets[b] + c * kChunk;
      const int64_t q = std::min(kChunk, plan.offsets[b + 1] - token);
      group.load(in, token, q, first_head / (H / plan.G));
      for (int64_t h = first_head; h < first_head + heads; ++h) {
        float* S = running.data() + (h - first_head) * state_size;
        head.load(in, token, q, h, group.CB.data());
        if (c > 0) {
          multiply(Into::overwrite, q, width, N, {group.C.data(), group.width, 1}, S, width, local_y.data(),
                   width);
          head.scale_rows(head.from_start, local_y.data(), q, local_y.data());
          if (states) std::copy_n(S, state_size, states + ((plan.first_chunk[b] + c) * H + h) * state_size);
        }
        multiply_lower(c > 0 ? Into::add : Into::overwrite, q, width, {head.M, kChunk, 1}, head.dtx.data(),
                       width, local_y.data(), width);
        for (int64_t i = 0; i < q; ++i) {
          float* row = y + ((token + i) * H + h) * P;
          const float D = in.D[h], *from = local_y.data() + i * width, *x = head.x.data() + i * width;
#pragma omp simd
          for (int64_t p = 0; p < P; ++p) row[p] = from[p] + D * x[p];
        }
        if (c + 1 < chunks) {
          head.scale_rows(head.to_end, head.dtx.data(), q, head.dtx.data());
          const float kept = head.from_start[q - 1];
          for (int64_t i = 0; i < state_size; i += kLanes) store(S + i) *= kept;
          multiply(Into::add, N, width, q, {group.B.data(), 1, group.width}, head.dtx.data(), width, S,
                   width);
        }
      }
    }
  }
}

}  // namespace hax::cpu
