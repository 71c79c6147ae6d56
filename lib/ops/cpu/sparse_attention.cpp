#include "lib/ops/cpu/sparse_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "lib/ops/cpu/key_gather.h"
#include "lib/ops/cpu/math.h"
#include "lib/ops/cpu/matrix.h"

namespace hax::cpu {
namespace {

// A vector length known when the code is compiled, or (0) only when it runs.
template <int D>
struct Length {
  explicit Length(int64_t d) : d_(d) {}
  int64_t get() const { return D > 0 ? D : d_; }

 private:
  int64_t d_;
};

template <int D>
float dot(Length<D> length, const float* __restrict a, const float* __restrict b) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < length.get(); ++c) sum += a[c] * b[c];
  return sum;
}

// y += a x
template <int D>
void add_scaled(Length<D> length, float a, const float* __restrict x, float* __restrict y) {
#pragma omp simd
  for (int64_t c = 0; c < length.get(); ++c) y[c] += a * x[c];
}

// result_n = q . rows[keys_n]
template <int D>
void dots(Length<D> length, const float* __restrict q, ConstRows rows, const std::vector<int64_t>& keys,
          float* __restrict result) {
  const size_t n = keys.size();
  size_t a = 0;
  for (; a + 4 <= n; a += 4) {  // four chains of additions at a time
    const float *k0 = rows.row(keys[a]), *k1 = rows.row(keys[a + 1]), *k2 = rows.row(keys[a + 2]),
                *k3 = rows.row(keys[a + 3]);
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t c = 0; c < length.get(); ++c) {
      s0 += q[c] * k0[c];
      s1 += q[c] * k1[c];
      s2 += q[c] * k2[c];
      s3 += q[c] * k3[c];
    }
    result[a] = s0;
    result[a + 1] = s1;
    result[a + 2] = s2;
    result[a + 3] = s3;
  }
  for (; a < n; ++a) result[a] = dot(length, q, rows.row(keys[a]));
}

// y = sum_n weights_n rows[keys_n]
template <int D>
void weighted_sum(Length<D> length, const float* weights, ConstRows rows, const std::vector<int64_t>& keys,
                  float* y) {
  if constexpr (D > 0) {
    static_assert(D % kLanes == 0);
    Vec sum[D / kLanes] = {};  // stays in registers over all keys
    for (size_t a = 0; a < keys.size(); ++a) {
      const float* x = rows.row(keys[a]);
      for (int64_t c = 0; c < D / kLanes; ++c) sum[c] += weights[a] * vec(x + c * kLanes);
    }
    std::memcpy(y, sum, sizeof(sum));
  } else {
    std::fill_n(y, length.get(), 0.0f);
    for (size_t a = 0; a < keys.size(); ++a) add_scaled(length, weights[a], rows.row(keys[a]), y);
  }
}

// Applies `body` to the lengths, compiled in for those that models use most.
template <class Body>
void with_lengths(int64_t d_qk, int64_t d_v, const Body& body) {
  const auto with_qk = [&](auto v) {
    switch (d_qk) {
      case 16:
        return body(Length<16>(d_qk), v);
      case 32:
        return body(Length<32>(d_qk), v);
      default:
        return body(Length<0>(d_qk), v);
    }
  };
  switch (d_v) {
    case 64:
      return with_qk(Length<64>(d_v));
    case 128:
      return with_qk(Length<128>(d_v));
    default:
      return with_qk(Length<0>(d_v));
  }
}

}  // namespace

void sparse_attention_forward(const SparseAttentionShape& shape, const std::vector<KeyRule>& rules,
                              ConstRows Q, ConstRows K, ConstRows V, int64_t begin, int64_t end, float* out,
                              float* log_sum_exp) {
  with_lengths(shape.d_qk, shape.d_v, [&](auto qk, auto v) {
    KeyGather gather(rules);
    std::vector<float> scores, uniform;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t base = shape.offsets[b], length = shape.offsets[b + 1] - base;
      gather.start(base, length);
      scores.resize(length);
      uniform.clear();  // the output of rows without keys, made when first needed
      for (int64_t row = base; row < base + length; ++row) {
        float* y = out + row * shape.d_v;
        const std::vector<int64_t>& keys = gather.next();
        const int64_t n = static_cast<int64_t>(keys.size());
        if (n == 0) {
          log_sum_exp[row] = 0.0f;
          if (shape.uniform_empty_rows && uniform.empty()) {
            uniform.assign(shape.d_v, 0.0f);
            for (int64_t j = base; j < base + length; ++j) add_scaled(v, 1.0f, V.row(j), uniform.data());
            for (float& value : uniform) value /= static_cast<float>(shape.padded_length);
          }
          if (shape.uniform_empty_rows) {
            std::copy(uniform.begin(), uniform.end(), y);
          } else {
            std::fill_n(y, shape.d_v, 0.0f);
          }
          continue;
        }
        float* __restrict p = scores.data();
        dots(qk, Q.row(row), K, keys, p);
        float largest = p[0];
        for (int64_t a = 1; a < n; ++a) largest = std::max(largest, p[a]);
        float sum = 0.0f;
        for (int64_t a = 0; a < n; ++a) {
          p[a] = exp(p[a] - largest);
          sum += p[a];
        }
        const float scale = 1.0f / sum;
        for (int64_t a = 0; a < n; ++a) p[a] *= scale;
        weighted_sum(v, p, V, keys, y);
        log_sum_exp[row] = largest + std::log(sum);
      }
    }
  });
}

void sparse_attention_backward(const SparseAttentionShape& shape, const std::vector<KeyRule>& rules,
                               ConstRows Q, ConstRows K, ConstRows V, ConstRows out, ConstRows grad_out,
                               const float* log_sum_exp, int64_t begin, int64_t end, float* dQ, float* dK,
                               float* dV) {
  with_lengths(shape.d_qk, shape.d_v, [&](auto qk, auto v) {
    KeyGather gather(rules);
    std::vector<float> scores, dP;
    std::vector<int64_t> everything;  // all positions of the sequence, for rows without keys
    for (int64_t b = begin; b < end; ++b) {
      const int64_t base = shape.offsets[b], length = shape.offsets[b + 1] - base;
      gather.start(base, length);
      scores.resize(length);
      dP.resize(length);
      std::fill_n(dQ + base * shape.d_qk, length * shape.d_qk, 0.0f);
      std::fill_n(dK + base * shape.d_qk, length * shape.d_qk, 0.0f);
      std::fill_n(dV + base * shape.d_v, length * shape.d_v, 0.0f);
      everything.clear();
      for (int64_t row = base; row < base + length; ++row) {
        const float* g = grad_out.row(row);
        const std::vector<int64_t>* keys_of_row = &gather.next();
        const bool empty = keys_of_row->empty();
        if (empty) {
          if (!shape.uniform_empty_rows) continue;
          if (everything.empty()) {
            everything.resize(length);
            std::iota(everything.begin(), everything.end(), base);
          }
          keys_of_row = &everything;
        }
        const std::vector<int64_t>& keys = *keys_of_row;
        const int64_t n = static_cast<int64_t>(keys.size());
        float* __restrict p = scores.data();
        if (empty) {
          std::fill_n(p, n, 1.0f / static_cast<float>(shape.padded_length));
        } else {
          dots(qk, Q.row(row), K, keys, p);
          const float lse = log_sum_exp[row];
          for (int64_t a = 0; a < n; ++a) p[a] = exp(p[a] - lse);
        }
        // dS = P (dP - sum_j P_j dP_j), and that sum is out . grad_out.
        dots(v, g, V, keys, dP.data());
        const float mean = dot(v, out.row(row), g);
        float* __restrict dS = dP.data();
        for (int64_t a = 0; a < n; ++a) dS[a] = p[a] * (dS[a] - mean);
        weighted_sum(qk, dS, K, keys, dQ + row * shape.d_qk);
        for (int64_t a = 0; a < n; ++a) {
          add_scaled(qk, dS[a], Q.row(row), dK + keys[a] * shape.d_qk);
          add_scaled(v, p[a], g, dV + keys[a] * shape.d_v);
        }
      }
    }
  });
}

}  // namespace hax::cpu
