// Gradient of one chunk, with dS the gradient of S_out (N, P), e and w the decays from the chunk's start and
// to its end, and a_t = dt_t A:
//   d(dt x) = M^T dy + w o (B dS)              dM = dy (dt x)^T, below the diagonal
//   dC      = (dM o L) B + e o (dy S_in^T)     dB = (dM o L)^T C + w o (dt x) dS^T
//   dS_in   = e_q dS + C^T (e o dy)
//   da_t    = sum over pairs j < t <= i of (dM o M)_ij, over i >= t of C_i . (e_i dy_i S_in^T), over j < t of
//             (dt x)_j . w_j (B dS)_j, and e_q <S_in, dS>: every decay that step t takes part in.
#include "lib/ops/cpu/ssd_chunk.h"

namespace hax::cpu {
namespace {

class BackwardTask {
 public:
  BackwardTask(const SsdPlan& plan, const SsdInput& in, const float* states, ConstRows dy,
               const SsdGradient& out)
      : plan_(plan),
        in_(in),
        states_(states),
        dy_rows_(dy),
        out_(out),
        group_(plan.N),
        head_(plan.P),
        width_(head_.width),
        state_size_(plan.N * width_),
        dstate_(plan.heads_per_task * state_size_),
        transposed_(padded(plan.N) * width_),
        dy_(kChunk * width_),
        scaled_(kChunk * width_),
        ddtx_(kChunk * width_),
        from_state_(kChunk * width_),
        dtx_transposed_(width_ * kChunk),
        dB_(kChunk * group_.width),
        dC_(kChunk * group_.width),
        dC_head_(kChunk * group_.width),
        dCB_(kChunk * kChunk),
        dM_(kChunk * kChunk) {}

  void run(int64_t task) {
    const int64_t H = plan_.H, heads = plan_.heads_per_task, blocks = H / heads;
    const int64_t b = task / blocks, first_head = task % blocks * heads;
    const int64_t chunks = plan_.first_chunk[b + 1] - plan_.first_chunk[b];
    for (int64_t h = first_head; h < first_head + heads; ++h) {
      out_.dA[b * H + h] = out_.dD[b * H + h] = out_.ddt_bias[b * H + h] = 0;
    }
    std::fill(dstate_.begin(), dstate_.end(), 0.0f);
    for (int64_t c = chunks; c-- > 0;) {
      token_ = plan_.offsets[b] + c * kChunk;
      q_ = std::min(kChunk, plan_.offsets[b + 1] - token_);
      const int64_t g = first_head / (H / plan_.G);
      group_.load(in_, token_, q_, g);
      for (auto* sum : {&dB_, &dC_, &dCB_}) std::fill(sum->begin(), sum->end(), 0.0f);
      for (int64_t h = first_head; h < first_head + heads; ++h) {
        const float* S = c > 0 ? states_ + ((plan_.first_chunk[b] + c) * H + h) * state_size_ : nullptr;
        one_head(b, h, S, dstate_.data() + (h - first_head) * state_size_, c + 1 < chunks);
      }
      write_group(g, first_head % (H / plan_.G) / heads);
    }
  }

 private:
  // S is null where the chunk starts from zero.
  void one_head(int64_t b, int64_t h, const float* S, float* dS, bool has_dS) {
    const int64_t H = plan_.H, P = plan_.P;
    head_.load(in_, token_, q_, h, group_.CB.data());
    copy_rows(dy_rows_.data + token_ * dy_rows_.stride + h * P, dy_rows_.stride, q_, P, width_, dy_.data());

    float da[kChunk], reaches_end[kChunk] = {};
    multiply_upper(Into::overwrite, q_, width_, {head_.M, 1, kChunk}, dy_.data(), width_, ddtx_.data(),
                   width_);
    intra_chunk(da);
    const float through = S && has_dS ? head_.from_start[q_ - 1] * dot(S, dS, state_size_) : 0.0f;
    if (has_dS) from_next_state(dS, reaches_end);
    if (S) from_last_state(S, dS, has_dS, da);

    float before = through, dA = 0, dD = 0, dbias = 0;
    const float A = in_.A[h], D = in_.D[h];
    for (int64_t i = 0; i < q_; ++i) {
      const float *x = head_.x.data() + i * width_, *dy = dy_.data() + i * width_,
                  *ddtx = ddtx_.data() + i * width_;
      const float da_i = da[i] + before;
      before += reaches_end[i];
      const float ddt = (da_i * A + dot(ddtx, x, width_)) * head_.slope[i];
      out_.ddt[(token_ + i) * H + h] = ddt;
      dbias += ddt;
      dA += da_i * head_.dt[i];
      dD += dot(dy, x, width_);
      float* dx = out_.dx + ((token_ + i) * H + h) * P;
      const float dt = head_.dt[i];
#pragma omp simd
      for (int64_t p = 0; p < P; ++p) dx[p] = dt * ddtx[p] + D * dy[p];
    }
    out_.dA[b * H + h] += dA;
    out_.dD[b * H + h] += dD;
    out_.ddt_bias[b * H + h] += dbias;
  }

  // dM, its part of da, and the sum over heads of dM o L.
  void intra_chunk(float* da) {
    transpose((q_ + 3) / 4 * 4, width_, head_.dtx.data(), width_, dtx_transposed_.data(), kChunk);
    multiply(Into::overwrite, q_, kChunk, plan_.P, {dy_.data(), width_, 1}, dtx_transposed_.data(), kChunk,
             dM_.data(), kChunk);
    // column_j = sum over i >= t of (dM o M)_ij
    float column[kChunk] = {};
    for (int64_t t = q_; t-- > 0;) {
      Vec sum{};
      for (int64_t j = 0; j < kChunk; j += kLanes) {
        const int64_t at = t * kChunk + j;
        const Vec dG = vec(dM_.data() + at) * vec(head_.L + at);
        store(dCB_.data() + at) += dG;
        store(column + j) += dG * vec(group_.CB.data() + at);
      }
      for (int64_t j = 0; j < kChunk; j += kLanes) {
        sum += kLaneNumbers < static_cast<int32_t>(t - j) ? vec(column + j) : Vec{};
      }
      da[t] = total(sum);
    }
  }

  // What flows back from S_out into dt x and B. reaches_end_j is the gradient of log w_j.
  void from_next_state(const float* dS, float* reaches_end) {
    head_.scale_rows(head_.to_end, head_.dtx.data(), q_, scaled_.data());
    multiply(Into::overwrite, q_, width_, plan_.N, {group_.B.data(), group_.width, 1}, dS, width_,
             from_state_.data(), width_);
    for (int64_t i = 0; i < q_; ++i) {
      const int64_t at = i * width_;
      reaches_end[i] = dot(scaled_.data() + at, from_state_.data() + at, width_);
      for (int64_t p = 0; p < width_; p += kLanes) {
        store(ddtx_.data() + at + p) += head_.to_end[i] * vec(from_state_.data() + at + p);
      }
    }
    transpose_state(dS);
    multiply(Into::add, q_, group_.width, plan_.P, {scaled_.data(), width_, 1}, transposed_.data(),
             group_.width, dB_.data(), group_.width);
  }

  // What flows through S_in: into C, into the steps since the chunk's start, and on to dS_in.
  void from_last_state(const float* S, float* dS, bool has_dS, float* da) {
    head_.scale_rows(head_.from_start, dy_.data(), q_, scaled_.data());
    transpose_state(S);
    multiply(Into::overwrite, q_, group_.width, plan_.P, {scaled_.data(), width_, 1}, transposed_.data(),
             group_.width, dC_head_.data(), group_.width);
    float since = 0;
    for (int64_t i = q_; i-- > 0;) {
      const int64_t at = i * group_.width;
      since += dot(group_.C.data() + at, dC_head_.data() + at, group_.width);
      da[i] += since;
      for (int64_t n = 0; n < group_.width; n += kLanes)
        store(dC_.data() + at + n) += vec(dC_head_.data() + at + n);
    }
    if (has_dS) {
      const float kept = head_.from_start[q_ - 1];
      for (int64_t i = 0; i < state_size_; i += kLanes) store(dS + i) *= kept;
    }
    multiply(Into::add, plan_.N, width_, q_, {group_.C.data(), 1, group_.width}, scaled_.data(), width_, dS,
             width_);
  }

  // transposed_ (P, group width) = S^T, S (N, width).
  void transpose_state(const float* S) {
    const int64_t whole = plan_.N / 4 * 4;
    transpose(whole, width_, S, width_, transposed_.data(), group_.width);
    for (int64_t n = whole; n < plan_.N; ++n) {
      for (int64_t p = 0; p < plan_.P; ++p) transposed_[p * group_.width + n] = S[n * width_ + p];
    }
  }

  void write_group(int64_t g, int64_t block) {
    multiply_lower(Into::add, q_, group_.width, {dCB_.data(), kChunk, 1}, group_.B.data(), group_.width,
                   dC_.data(), group_.width);
    multiply_upper(Into::add, q_, group_.width, {dCB_.data(), 1, kChunk}, group_.C.data(), group_.width,
                   dB_.data(), group_.width);
    for (int64_t i = 0; i < q_; ++i) {
      const int64_t row = ((block * plan_.tokens() + token_ + i) * plan_.G + g) * plan_.N;
      std::copy_n(dB_.data() + i * group_.width, plan_.N, out_.dB + row);
      std::copy_n(dC_.data() + i * group_.width, plan_.N, out_.dC + row);
    }
  }

  const SsdPlan& plan_;
  const SsdInput& in_;
  const float* states_;
  const ConstRows dy_rows_;
  const SsdGradient& out_;
  GroupChunk group_;
  HeadChunk head_;
  const int64_t width_, state_size_;
  int64_t token_ = 0, q_ = 0;
  std::vector<float> dstate_;       // (heads_per_task, N, width)
  std::vector<float> transposed_;   // (P, group width), zeros behind N
  std::vector<float> dy_, scaled_;  // (kChunk, width)
  std::vector<float> ddtx_, from_state_;
  std::vector<float> dtx_transposed_;     // (P, kChunk)
  std::vector<float> dB_, dC_, dC_head_;  // (kChunk, group width)
  std::vector<float> dCB_, dM_;           // (kChunk, kChunk)
};

}  // namespace

void ssd_backward(const SsdPlan& plan, const SsdInput& in, const float* states, ConstRows dy,
                  const SsdGradient& out, int64_t begin, int64_t end) {
  BackwardTask backward(plan, in, states, dy, out);
  for (int64_t task = begin; task < end; ++task) backward.run(task);
}

}  // namespace hax::cpu
