#include "lib/ops/cpu/lsh.h"

#include <algorithm>
#include <vector>

namespace hax::cpu {

void centre_by_running_mean(ConstRows x, int64_t d, const int64_t* offsets, int64_t begin, int64_t end,
                            float* y) {
  std::vector<float> running(d);
  float* __restrict sum = running.data();
  for (int64_t b = begin; b < end; ++b) {
    std::fill(running.begin(), running.end(), 0.0f);
    for (int64_t row = offsets[b]; row < offsets[b + 1]; ++row) {
      const float* __restrict in = x.row(row);
      float* __restrict out = y + row * d;
      const float seen = static_cast<float>(row - offsets[b] + 1);
      for (int64_t c = 0; c < d; ++c) {
        sum[c] += in[c];
        out[c] = in[c] - sum[c] / seen;
      }
    }
  }
}

void sign_bins(const float* projection, int64_t h, int64_t begin, int64_t end, int64_t* bin) {
  for (int64_t row = begin; row < end; ++row) {
    const float* in = projection + row * h;
    int64_t bits = 0;
    for (int64_t b = 0; b < h; ++b) bits |= static_cast<int64_t>(in[b] > 0.0f) << b;
    bin[row] = bits;
  }
}

void lsh_ranks(const int64_t* query_bin, const int64_t* key_bin, int64_t n_bins, const int64_t* offsets,
               int64_t begin, int64_t end, int64_t* rank, int64_t* count) {
  // One table for all sequences: after each, only the bins that it touched are cleared.
  std::vector<int64_t> seen(n_bins, 0);
  for (int64_t b = begin; b < end; ++b) {
    for (int64_t row = offsets[b]; row < offsets[b + 1]; ++row) {
      rank[row] = seen[key_bin[row]]++;
      count[row] = seen[query_bin[row]];
    }
    for (int64_t row = offsets[b]; row < offsets[b + 1]; ++row) seen[key_bin[row]] = 0;
  }
}

}  // namespace hax::cpu
