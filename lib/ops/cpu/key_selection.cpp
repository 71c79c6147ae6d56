#include "lib/ops/cpu/key_selection.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/ops/cpu/math.h"

namespace hax::cpu {
namespace {

constexpr float kNormEps = 1e-12f;

float dot(const float* __restrict a, const float* __restrict b, int64_t d) {
  float sum = 0.0f;
  for (int64_t c = 0; c < d; ++c) sum += a[c] * b[c];
  return sum;
}

}  // namespace

void query_summary_causal(ConstRows Q, int64_t d, const int64_t* offsets, int64_t begin, int64_t end,
                          float* y) {
  std::vector<float> running(d);
  float* __restrict sum = running.data();
  for (int64_t b = begin; b < end; ++b) {
    std::fill(running.begin(), running.end(), 0.0f);
    for (int64_t row = offsets[b]; row < offsets[b + 1]; ++row) {
      const float* __restrict in = Q.row(row);
      float* __restrict out = y + row * d;
      float square = 0.0f;
      for (int64_t c = 0; c < d; ++c) {
        sum[c] += in[c];
        square += sum[c] * sum[c];
      }
      const float norm = std::max(std::sqrt(square), kNormEps);
      for (int64_t c = 0; c < d; ++c) out[c] = sum[c] / norm;
    }
  }
}

void cumulative_topk(const float* scores, int64_t k, const int64_t* offsets, int64_t begin, int64_t end,
                     int64_t* evicted) {
  struct Entry {
    float score;
    int64_t position;
  };
  // As a heap order this keeps the worst entry in front: the lowest score, among equals the latest position.
  const auto better = [](const Entry& a, const Entry& b) {
    return a.score > b.score || (a.score == b.score && a.position < b.position);
  };
  std::vector<Entry> heap;
  for (int64_t b = begin; b < end; ++b) {
    heap.clear();
    const int64_t base = offsets[b], length = offsets[b + 1] - base;
    for (int64_t i = 0; i < length; ++i) {
      const Entry entry{scores[base + i], i};
      if (static_cast<int64_t>(heap.size()) == k) {
        if (!better(entry, heap.front())) {
          evicted[base + i] = i;
          continue;
        }
        std::pop_heap(heap.begin(), heap.end(), better);
        evicted[base + heap.back().position] = i;
        heap.pop_back();
      }
      heap.push_back(entry);
      std::push_heap(heap.begin(), heap.end(), better);
    }
    for (const Entry& entry : heap) evicted[base + entry.position] = length;
  }
}

void ranking_targets(ConstRows Q, ConstRows K, int64_t d, const int64_t* sampled, int64_t s,
                     const int64_t* pad_queries, const int64_t* offsets, int64_t begin, int64_t end,
                     float* targets) {
  std::vector<float> logits;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t base = offsets[b], length = offsets[b + 1] - base;
    logits.resize(length);
    for (int64_t a = 0; a < s; ++a) {
      const int64_t j = sampled[b * s + a];
      float& target = targets[b * s + a];
      target = 0.0f;
      if (j < 0) continue;
      if (j >= length) {  // a padded key: every query from j on is padded too
        target = 0.5f * static_cast<float>(length + pad_queries[b] - j);
        continue;
      }
      const float* key = K.row(base + j);
      for (int64_t i = j; i < length; ++i) logits[i] = dot(Q.row(base + i), key, d);
      float sum = 0.0f;
      for (int64_t i = j; i < length; ++i) sum += sigmoid(logits[i]);
      target = sum + 0.5f * static_cast<float>(pad_queries[b]);
    }
  }
}

}  // namespace hax::cpu
