// With g_t = dL/dh_t, from the last token to the first:
//   g_t = C_t dy_t + exp(dt_{t+1} A) g_{t+1}
//   dC_t = sum over channels of h_t dy_t            dB_t = sum over channels of g_t dt_t u_t
//   d(dt_t u_t) = sum_n g_t B_t                     d(dt_t A) = w_t = g_t exp(dt_t A) h_{t-1}
//   d(dt_t) = sum_n w_t A + u_t d(dt_t u_t)         dA = sum_t w_t dt_t
#include "lib/ops/cpu/selective_scan_strip.h"

namespace hax::cpu {
namespace {

class BackwardTask {
 public:
  BackwardTask(const SelectiveScanPlan& plan, const SelectiveScanInput& in, const float* states, ConstRows dy,
               const SelectiveScanGradient& out)
      : plan_(plan),
        in_(in),
        states_(states),
        dy_(dy),
        out_(out),
        state_size_(plan.N * kLanes),
        strips_(plan.strips_per_task, Strip(plan.N)),
        h_((kScanChunk + 1) * state_size_),
        decay_(kScanChunk * state_size_),
        dB_(kScanChunk * state_size_),
        dC_(kScanChunk * state_size_) {}

  void run(int64_t task) {
    const int64_t split = plan_.tasks_per_sequence(), b = task / split, part = task % split;
    const int64_t first = part * plan_.strips_per_task;
    const int64_t count = std::min(plan_.strips - first, plan_.strips_per_task);
    for (int64_t s = 0; s < count; ++s) strips_[s].start(in_, (first + s) * kLanes, plan_.channels);
    for (int64_t c = plan_.first_chunk[b + 1] - plan_.first_chunk[b]; c-- > 0;) {
      token_ = plan_.offsets[b] + c * kScanChunk;
      q_ = std::min(kScanChunk, plan_.offsets[b + 1] - token_);
      std::fill(dB_.begin(), dB_.end(), 0.0f);
      std::fill(dC_.begin(), dC_.end(), 0.0f);
      for (int64_t s = 0; s < count; ++s) {
        recompute(strips_[s].strip,
                  states_ + ((plan_.first_chunk[b] + c) * plan_.strips + first + s) * state_size_);
        go_back(strips_[s]);
      }
      const int64_t row = (part * plan_.tokens() + token_) * plan_.N;
      for (int64_t i = 0; i < q_ * plan_.N; ++i) {
        out_.dB[row + i] = total(vec(dB_.data() + i * kLanes));
        out_.dC[row + i] = total(vec(dC_.data() + i * kLanes));
      }
    }
    for (int64_t s = 0; s < count; ++s) strips_[s].write(out_, b, plan_.channels);
  }

 private:
  // A strip's parameters, their gradient over the sequence, and the gradient of its state.
  struct Strip {
    explicit Strip(int64_t N) : strip(N), dA(N * kLanes), dh(N * kLanes) {}

    void start(const SelectiveScanInput& in, int64_t channel, int64_t channels) {
      strip.load_parameters(in, channel, channels);
      std::fill(dA.begin(), dA.end(), 0.0f);
      std::fill(dh.begin(), dh.end(), 0.0f);
      dD = ddt_bias = Vec{};
    }

    void write(const SelectiveScanGradient& out, int64_t b, int64_t channels) const {
      const int64_t row = b * channels + strip.channel;
      store_lanes(dD, out.dD + row, strip.lanes);
      store_lanes(ddt_bias, out.ddt_bias + row, strip.lanes);
      for (int64_t l = 0; l < strip.lanes; ++l) {
        for (int64_t n = 0; n < strip.N; ++n) out.dA[(row + l) * strip.N + n] = dA[n * kLanes + l];
      }
    }

    ScanStrip strip;
    std::vector<float> dA, dh;  // (N, kLanes)
    Vec dD{}, ddt_bias{};
  };

  // h_ (1 + q, N, kLanes) from the state before the chunk on, and the decays.
  void recompute(ScanStrip& strip, const float* before) {
    strip.load_chunk(in_, token_, q_);
    std::copy_n(before, state_size_, h_.data());
    for (int64_t i = 0; i < q_; ++i) {
      float* decay = decay_.data() + i * state_size_;
      strip.decays(i, decay);
      const float *B = in_.B.row(token_ + i), *last = h_.data() + i * state_size_;
      float* next = h_.data() + (i + 1) * state_size_;
      const Vec dtu = vec(strip.dtu + i * kLanes);
      for (int64_t n = 0; n < plan_.N; ++n) {
        const int64_t at = n * kLanes;
        store(next + at) = vec(last + at) * vec(decay + at) + dtu * B[n];
      }
    }
  }

  void go_back(Strip& s) {
    const ScanStrip& strip = s.strip;
    float slope[kScanChunk * kLanes];
#pragma omp simd
    for (int64_t i = 0; i < q_ * kLanes; ++i) slope[i] = sigmoid(strip.raw_dt[i]);
    for (int64_t i = q_; i-- > 0;) {
      const int64_t begin = i * state_size_;
      const float *B = in_.B.row(token_ + i), *C = in_.C.row(token_ + i);
      const float *last = h_.data() + begin, *next = last + state_size_, *decay = decay_.data() + begin;
      float *dB = dB_.data() + begin, *dC = dC_.data() + begin;
      const Vec dy = load_lanes(dy_.row(token_ + i) + strip.channel, strip.lanes);
      const Vec dt = vec(strip.dt + i * kLanes), u = vec(strip.u + i * kLanes);
      const Vec dtu = vec(strip.dtu + i * kLanes);
      Vec ddtu{}, ddt{};
      for (int64_t n = 0; n < plan_.N; ++n) {
        const int64_t at = n * kLanes;
        const Vec g = vec(s.dh.data() + at) + dy * C[n];
        const Vec kept = g * vec(decay + at);
        const Vec w = kept * vec(last + at);
        store(dC + at) += dy * vec(next + at);
        store(dB + at) += g * dtu;
        store(s.dA.data() + at) += w * dt;
        store(s.dh.data() + at) = kept;
        ddtu += g * B[n];
        ddt += w * vec(strip.A.data() + at);
      }
      const Vec ddelta = (ddt + u * ddtu) * vec(slope + i * kLanes);
      s.dD += dy * u;
      s.ddt_bias += ddelta;
      const int64_t place = (token_ + i) * plan_.channels + strip.channel;
      store_lanes(strip.D * dy + dt * ddtu, out_.du + place, strip.lanes);
      store_lanes(ddelta, out_.ddelta + place, strip.lanes);
    }
  }

  const SelectiveScanPlan& plan_;
  const SelectiveScanInput& in_;
  const float* states_;
  const ConstRows dy_;
  const SelectiveScanGradient& out_;
  const int64_t state_size_;
  int64_t token_ = 0, q_ = 0;
  std::vector<Strip> strips_;
  std::vector<float> h_;      // (1 + kScanChunk, N, kLanes)
  std::vector<float> decay_;  // (kScanChunk, N, kLanes)
  std::vector<float> dB_, dC_;
};

}  // namespace

void selective_scan_backward(const SelectiveScanPlan& plan, const SelectiveScanInput& in, const float* states,
                             ConstRows dy, const SelectiveScanGradient& out, int64_t begin, int64_t end) {
  BackwardTask backward(plan, in, states, dy, out);
  for (int64_t task = begin; task < end; ++task) backward.run(task);
}

}  // namespace hax::cpu
