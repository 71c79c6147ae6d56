#include "lib/ops/cpu/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/ops/cpu/math.h"

namespace hax::cpu {
namespace {

// u and the row's 1 / root mean square. `gate` receives sigmoid(z).
float gated_row(const NormInput& in, int64_t row, float* u, float* gate) {
  const float* x = in.x.row(row);
  float squares = 0;
  if (in.z.data) {
    const float* z = in.z.row(row);
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < in.d; ++i) {
      gate[i] = sigmoid(z[i]);
      u[i] = x[i] * z[i] * gate[i];
      squares += u[i] * u[i];
    }
  } else {
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < in.d; ++i) {
      u[i] = x[i];
      squares += u[i] * u[i];
    }
  }
  return 1.0f / std::sqrt(squares / static_cast<float>(in.d) + in.eps);
}

}  // namespace

void norm_forward(const NormInput& in, float* y, int64_t begin, int64_t end) {
  std::vector<float> u(in.d), gate(in.d);
  for (int64_t row = begin * kNormBlock; row < std::min(end * kNormBlock, in.rows); ++row) {
    const float r = gated_row(in, row, u.data(), gate.data());
    float* out = y + row * in.d;
#pragma omp simd
    for (int64_t i = 0; i < in.d; ++i) out[i] = u[i] * r * in.weight[i];
  }
}

void norm_backward(const NormInput& in, ConstRows dy, float* dx, float* dz, float* parts, int64_t begin,
                   int64_t end) {
  std::vector<float> u(in.d), gate(in.d), dw(in.d);
  for (int64_t block = begin; block < end; ++block) {
    std::fill(dw.begin(), dw.end(), 0.0f);
    for (int64_t row = block * kNormBlock; row < std::min((block + 1) * kNormBlock, in.rows); ++row) {
      const float r = gated_row(in, row, u.data(), gate.data());
      const float* upstream = dy.row(row);
      float projection = 0;
#pragma omp simd reduction(+ : projection)
      for (int64_t i = 0; i < in.d; ++i) {
        projection += in.weight[i] * upstream[i] * u[i];
        dw[i] += upstream[i] * u[i] * r;
      }
      const float along = projection / static_cast<float>(in.d) * r * r;
      float* dx_row = dx + row * in.d;
      if (in.z.data) {
        const float *x = in.x.row(row), *z = in.z.row(row);
        float* dz_row = dz + row * in.d;
#pragma omp simd
        for (int64_t i = 0; i < in.d; ++i) {
          const float du = r * (in.weight[i] * upstream[i] - u[i] * along);
          dx_row[i] = du * z[i] * gate[i];
          dz_row[i] = du * x[i] * (gate[i] + z[i] * gate[i] * (1.0f - gate[i]));
        }
      } else {
#pragma omp simd
        for (int64_t i = 0; i < in.d; ++i) dx_row[i] = r * (in.weight[i] * upstream[i] - u[i] * along);
      }
    }
    std::copy(dw.begin(), dw.end(), parts + block * in.d);
  }
}

}  // namespace hax::cpu
