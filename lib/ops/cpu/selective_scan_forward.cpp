#include "lib/ops/cpu/selective_scan_strip.h"

namespace hax::cpu {
namespace {

// Enough tasks to share out evenly among a few threads; more would add parts to the sums over tasks.
constexpr int64_t kTasksWanted = 8;

}  // namespace

SelectiveScanPlan::SelectiveScanPlan(const int64_t* offsets, int64_t batch, int64_t channels, int64_t N)
    : offsets(offsets),
      batch(batch),
      channels(channels),
      N(N),
      strips(padded(channels) / kLanes),
      strips_per_task(strips),
      first_chunk(batch + 1, 0) {
  while (strips_per_task > 1 && tasks() < kTasksWanted) --strips_per_task;
  for (int64_t b = 0; b < batch; ++b) {
    first_chunk[b + 1] = first_chunk[b] + (offsets[b + 1] - offsets[b] + kScanChunk - 1) / kScanChunk;
  }
}

int64_t SelectiveScanPlan::state_floats() const { return first_chunk[batch] * strips * N * kLanes; }

void selective_scan_forward(const SelectiveScanPlan& plan, const SelectiveScanInput& in, float* y,
                            float* states, int64_t begin, int64_t end) {
  const int64_t N = plan.N, state_size = N * kLanes, split = plan.tasks_per_sequence();
  ScanStrip strip(N);
  std::vector<float> h(state_size), decay(state_size);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / split, first = task % split * plan.strips_per_task;
    const int64_t last = std::min(plan.strips, first + plan.strips_per_task);
    const int64_t chunks = plan.first_chunk[b + 1] - plan.first_chunk[b];
    for (int64_t s = first; s < last; ++s) {
      strip.load_parameters(in, s * kLanes, plan.channels);
      std::fill(h.begin(), h.end(), 0.0f);
      for (int64_t c = 0; c < chunks; ++c) {
        const int64_t token = plan.offsets[b] + c * kScanChunk;
        const int64_t q = std::min(kScanChunk, plan.offsets[b + 1] - token);
        if (states)
          std::copy_n(h.data(), state_size,
                      states + ((plan.first_chunk[b] + c) * plan.strips + s) * state_size);
        strip.load_chunk(in, token, q);
        for (int64_t i = 0; i < q; ++i) {
          strip.decays(i, decay.data());
          const float *B = in.B.row(token + i), *C = in.C.row(token + i);
          const Vec dtu = vec(strip.dtu + i * kLanes);
          Vec sum = strip.D * vec(strip.u + i * kLanes);
          for (int64_t n = 0; n < N; ++n) {
            const Vec state = vec(h.data() + n * kLanes) * vec(decay.data() + n * kLanes) + dtu * B[n];
            store(h.data() + n * kLanes) = state;
            sum += state * C[n];
          }
          store_lanes(sum, y + (token + i) * plan.channels + strip.channel, strip.lanes);
        }
      }
    }
  }
}

}  // namespace hax::cpu
