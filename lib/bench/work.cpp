#include "lib/bench/work.h"

#include <algorithm>

namespace hax {
namespace {

constexpr int64_t kParameterBytes = 4;  // A, D, biases and taps are fp32

// `in` bytes that the forward pass reads, with gradients as large, and `out` that it writes.
Passes passes(int64_t in, int64_t out, int64_t forward_flops, int64_t backward_flops) {
  const auto number = [](int64_t x) { return static_cast<double>(x); };
  return {{number(in + out), number(forward_flops)},
          {number(3 * in + 2 * out), number(forward_flops + backward_flops)}};
}

}  // namespace

Passes selective_scan_work(const ScanWorkShape& s, int64_t element_bytes) {
  const int64_t rows = s.tokens * element_bytes, states = s.tokens * s.d_inner * s.d_state;
  const int64_t in = rows * (2 * s.d_inner + 2 * s.d_state) + kParameterBytes * s.d_inner * (s.d_state + 2);
  return passes(in, rows * s.d_inner, 7 * states, 15 * states);
}

Passes ssd_work(const SsdWorkShape& s, int64_t element_bytes) {
  const int64_t rows = s.tokens * element_bytes, states = s.tokens * s.heads * s.head_dim * s.d_state;
  const int64_t in =
      rows * (s.heads * s.head_dim + s.heads + 2 * s.groups * s.d_state) + kParameterBytes * 3 * s.heads;
  return passes(in, rows * s.heads * s.head_dim, 5 * states, 11 * states);
}

Passes conv_work(const ConvWorkShape& s, int64_t element_bytes) {
  const int64_t values = s.tokens * s.channels;
  const int64_t in = values * element_bytes + kParameterBytes * s.channels * (s.width + 1);
  return passes(in, values * element_bytes, values * (2 * s.width + 4), values * (4 * s.width + 6));
}

Passes attention_work(const AttentionWorkShape& s, int64_t element_bytes) {
  const int64_t rows = s.tokens * element_bytes;
  return passes(rows * (2 * s.d_qk + s.d_v), rows * s.d_v, s.pairs * (2 * s.d_qk + 2 * s.d_v + 2),
                s.pairs * (4 * s.d_qk + 4 * s.d_v + 3));
}

Work lsh_work(int64_t tokens, int64_t d_qk, int64_t projections, int64_t element_bytes) {
  return {static_cast<double>(tokens * (2 * d_qk * element_bytes + 4 * 8)),
          static_cast<double>(tokens * 2 * (2 * d_qk * projections))};
}

Work key_selection_work(int64_t tokens, int64_t d_qk, int64_t element_bytes) {
  const int64_t width = 2 * d_qk;
  return {static_cast<double>(tokens * (2 * d_qk * element_bytes + 8)),
          static_cast<double>(tokens * 2 * (2 * width * width + width))};
}

int64_t pairs_of_share(const std::vector<int64_t>& lengths, int64_t share) {
  int64_t pairs = 0;
  for (const int64_t length : lengths) {
    const int64_t rising = std::min(length, share);
    pairs += rising * (rising + 1) / 2 + (length - rising) * share;
  }
  return pairs;
}

int64_t pairs_of_dilation(const std::vector<int64_t>& lengths, int64_t dilation) {
  int64_t pairs = 0;
  for (const int64_t length : lengths) {
    const int64_t keys = length / dilation, beyond = length - keys * dilation;  // queries that see all
    pairs += dilation * keys * (keys - 1) / 2 + keys * (beyond + 1);
  }
  return pairs;
}

int64_t pairs_of_all(const std::vector<int64_t>& lengths) {
  int64_t pairs = 0;
  for (const int64_t length : lengths) pairs += length * (length + 1) / 2;
  return pairs;
}

}  // namespace hax
