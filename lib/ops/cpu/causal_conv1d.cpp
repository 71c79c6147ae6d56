#include "lib/ops/cpu/causal_conv1d.h"

#include <algorithm>
#include <vector>

#include "lib/ops/cpu/math.h"

namespace hax::cpu {
namespace {

// Rows of x under the taps at token t; before the sequence's beginning, a row of zeros.
template <int kWidth>
inline void rows_under(const ConvInput& in, int64_t t, const float* zeros, const float* (&rows)[kWidth]) {
  for (int k = 0; k < kWidth; ++k) {
    const int64_t back = kWidth - 1 - k;
    rows[k] = in.position[t] >= back ? in.x.row(t - back) : zeros;
  }
}

template <int kWidth>
inline float preactivation(const ConvInput& in, const float* const (&rows)[kWidth], int64_t c) {
  float sum = in.bias[c];
  for (int k = 0; k < kWidth; ++k) sum += in.taps[k * in.channels + c] * rows[k][c];
  return sum;
}

template <int kWidth>
void forward(const ConvInput& in, float* y, int64_t begin, int64_t end) {
  const std::vector<float> zeros(in.channels, 0.0f);
  const float* rows[kWidth];
  for (int64_t t = begin * kConvBlock; t < std::min(end * kConvBlock, in.tokens); ++t) {
    rows_under<kWidth>(in, t, zeros.data(), rows);
    float* out = y + t * in.channels;
#pragma omp simd
    for (int64_t c = 0; c < in.channels; ++c) out[c] = silu(preactivation<kWidth>(in, rows, c));
  }
}

template <int kWidth>
void backward(const ConvInput& in, ConstRows dy, float* dx, float* parts, int64_t begin, int64_t end) {
  const int64_t channels = in.channels;
  const std::vector<float> zeros(channels, 0.0f);
  // Gradients before the SiLU at t .. t + width - 1, at t modulo width.
  std::vector<float> ring(kWidth * channels);
  const float *rows[kWidth], *later[kWidth];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kConvBlock, last = std::min(first + kConvBlock, in.tokens);
    float* part = parts + block * (kWidth + 1) * channels;
    std::fill_n(part, (kWidth + 1) * channels, 0.0f);
    // The tokens behind the block that its last ones reach.
    int64_t stop = last;
    while (stop < in.tokens && stop - last < kWidth - 1 && in.seq_id[stop] == in.seq_id[last - 1]) ++stop;
    for (int64_t t = stop; t-- > first;) {
      rows_under<kWidth>(in, t, zeros.data(), rows);
      float* gradient = ring.data() + t % kWidth * channels;
      const float* upstream = dy.row(t);
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float a = preactivation<kWidth>(in, rows, c);
        const float s = sigmoid(a);
        gradient[c] = upstream[c] * (s + a * s * (1.0f - s));
      }
      if (t >= last) continue;
      for (int m = 0; m < kWidth; ++m) {
        const bool reaches = t + m < in.tokens && in.seq_id[t + m] == in.seq_id[t];
        later[m] = reaches ? ring.data() + (t + m) % kWidth * channels : zeros.data();
      }
      float* out = dx + t * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        for (int m = 0; m < kWidth; ++m) sum += in.taps[(kWidth - 1 - m) * channels + c] * later[m][c];
        out[c] = sum;
        for (int k = 0; k < kWidth; ++k) part[k * channels + c] += gradient[c] * rows[k][c];
        part[kWidth * channels + c] += gradient[c];
      }
    }
  }
}

// Calls f with the width as a constant.
template <class F>
void with_width(int64_t width, F&& f) {
  switch (width) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    default:
      return f.template operator()<4>();
  }
}

}  // namespace

void conv_forward(const ConvInput& in, float* y, int64_t begin, int64_t end) {
  with_width(in.width, [&]<int kWidth>() { forward<kWidth>(in, y, begin, end); });
}

void conv_backward(const ConvInput& in, ConstRows dy, float* dx, float* parts, int64_t begin, int64_t end) {
  with_width(in.width, [&]<int kWidth>() { backward<kWidth>(in, dy, dx, parts, begin, end); });
}

}  // namespace hax::cpu
