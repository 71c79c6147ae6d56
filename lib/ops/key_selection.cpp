#include "lib/ops/key_selection.h"

#include "lib/ops/cpu/key_selection.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/for_sequences.h"

namespace hax::ops {
namespace {

constexpr double kNormEps = 1e-12;

at::Tensor by_own_norm(const at::Tensor& sums) { return sums / sums.norm(2, 1, true).clamp_min(kNormEps); }

// x (B, L, d): the running sum along L, every partial sum rounded to x's dtype. The CPU's cumsum would keep
// fp32 between the terms, a GPU's does not.
at::Tensor rounded_cumsum(const at::Tensor& x) {
  if (x.is_cuda() || x.scalar_type() == compute_type(x)) return x.cumsum(1);
  at::Tensor sums = at::empty_like(x), sum = at::zeros_like(x.select(1, 0));
  for (int64_t i = 0; i < x.size(1); ++i) sums.select(1, i).copy_(sum.add_(x.select(1, i)));
  return sums;
}

at::Tensor query_summary_causal_reference(const at::Tensor& Q, const PackedLayout& layout) {
  at::Tensor sums = at::empty_like(Q);
  for (int64_t b = 0; b < layout.batch(); ++b) {
    for (int64_t row = layout.offsets[b]; row < layout.offsets[b + 1]; ++row) {
      sums[row].copy_(Q.slice(0, layout.offsets[b], row + 1).sum(0));
    }
  }
  return by_own_norm(sums);
}

at::Tensor query_summary_paper_reference(const at::Tensor& Q, const PackedLayout& layout) {
  std::vector<at::Tensor> result;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const at::Tensor padded = at::constant_pad_nd(Q.slice(0, layout.offsets[b], layout.offsets[b + 1]),
                                                  {0, 0, 0, layout.padded_length - layout.seqlen(b)});
    const at::Tensor sums = rounded_cumsum(padded.unsqueeze(0))[0];
    const at::Tensor norms = sums.to(compute_type(Q)).norm(2, 0).to(Q.scalar_type());
    result.push_back((sums / norms.clamp_min(kNormEps)).slice(0, 0, layout.seqlen(b)));
  }
  return at::cat(result);
}

// A key is evicted when the k-th key that beats it arrives.
at::Tensor evicted_reference(const at::Tensor& scores, int64_t k, const PackedLayout& layout) {
  std::vector<int64_t> evicted;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const at::Tensor s =
        scores.slice(0, layout.offsets[b], layout.offsets[b + 1]).to(at::kCPU, at::kDouble).contiguous();
    const double* score = s.const_data_ptr<double>();
    for (int64_t j = 0; j < layout.seqlen(b); ++j) {
      int64_t beaten_by = 0, i = 0;
      for (; i < layout.seqlen(b); ++i) {
        if (score[i] > score[j] || (score[i] == score[j] && i < j)) ++beaten_by;
        if (beaten_by == k) break;
      }
      evicted.push_back(std::max(i, j));
    }
  }
  return at::tensor(evicted, at::kLong).to(scores.device());
}

at::Tensor evicted_composite(const at::Tensor& scores, int64_t k, const PackedLayout& layout,
                             int64_t max_pairs) {
  const int64_t L = layout.max_seqlen;
  const at::Tensor padded = to_padded(scores, layout);  // (B, L)
  const at::Tensor position = at::arange(L, layout.position.options());
  const at::Tensor lengths = layout.cu_seqlens.diff();
  at::Tensor evicted = at::empty({layout.batch(), L}, layout.position.options());
  const int64_t sequences = std::clamp<int64_t>(max_pairs / (L * L), 1, layout.batch());
  const int64_t keys = std::clamp<int64_t>(max_pairs / (sequences * L), 1, L);
  for (int64_t b = 0; b < layout.batch(); b += sequences) {
    const int64_t b_end = std::min(b + sequences, layout.batch());
    const at::Tensor others = padded.slice(0, b, b_end).unsqueeze(1);  // (b, 1, L)
    const at::Tensor real = position < lengths.slice(0, b, b_end).view({-1, 1, 1});
    for (int64_t j = 0; j < L; j += keys) {
      const int64_t j_end = std::min(j + keys, L);
      const at::Tensor own = padded.slice(0, b, b_end).slice(1, j, j_end).unsqueeze(2);  // (b, j, 1)
      const at::Tensor earlier = position.unsqueeze(0) < position.slice(0, j, j_end).unsqueeze(1);
      const at::Tensor beats =
          (others == own).logical_and_(earlier).logical_or_(others > own).logical_and_(real);
      const at::Tensor kth =
          (beats.cumsum(2, at::kInt) < k).sum(2);  // position of the k-th that beats it, or L
      evicted.slice(0, b, b_end).slice(1, j, j_end).copy_(kth);
    }
  }
  return at::maximum(at::minimum(to_packed(evicted, layout), lengths.index_select(0, layout.seq_id)),
                     layout.position);
}

at::Tensor ranking_targets_reference(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& sampled,
                                     const at::Tensor& pad_queries, const PackedLayout& layout) {
  at::Tensor targets = at::zeros(sampled.sizes(), Q.options().dtype(compute_type(Q)));
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const int64_t n = layout.seqlen(b), base = layout.offsets[b], pads = pad_queries[b].item<int64_t>();
    for (int64_t a = 0; a < sampled.size(1); ++a) {
      const int64_t j = sampled[b][a].item<int64_t>();
      if (j < 0) continue;
      for (int64_t i = j; i < n + pads; ++i) {
        const bool real = i < n && j < n;
        targets[b][a] += real ? at::sigmoid(Q[base + i].dot(K[base + j])) : at::full({}, 0.5, Q.options());
      }
    }
  }
  return targets.to(Q.scalar_type());
}

at::Tensor ranking_targets_composite(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& sampled,
                                     const at::Tensor& pad_queries, const PackedLayout& layout) {
  const int64_t B = layout.batch();
  const at::Tensor n = layout.cu_seqlens.diff().view({B, 1}), pads = pad_queries.view({B, 1});
  const at::Tensor rows = layout.cu_seqlens.slice(0, 0, B).view({B, 1}) + sampled.clamp_min(0).minimum(n - 1);
  const at::Tensor keys = K.index_select(0, rows.flatten()).view({B, -1, K.size(1)});
  const at::Tensor i = at::arange(layout.max_seqlen, sampled.options()).view({1, 1, -1});
  // (B, s, L); a key behind the end sees no real query.
  const at::Tensor seen = (i >= sampled.unsqueeze(2)).logical_and_(i < n.unsqueeze(2));
  const at::Tensor weights = at::bmm(keys, to_padded(Q, layout).transpose(1, 2)).sigmoid_();
  const auto wide = compute_type(Q);
  const at::Tensor padded = (n + pads - sampled.maximum(n)).to(wide) * 0.5;
  return ((weights * seen).sum(2, false, wide) + padded).masked_fill(sampled < 0, 0.0).to(Q.scalar_type());
}

}  // namespace

at::Tensor query_summary_causal(const at::Tensor& Q_in, const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
#ifdef HAX_CUDA
  if (use_cuda_kernel("query_summary_causal", path, Q_in, [&] { return query_summary_cuda_refusal(Q_in); }))
    return query_summary_causal_cuda(Q_in, layout);
#endif
  const at::Tensor Q = Q_in.to(compute_type(Q_in));
  if (use_cpu_kernel("query_summary_causal", path, Q)) {
    const at::Tensor rows = as_rows(Q);
    at::Tensor summary = at::empty(rows.sizes(), rows.options());
    for_sequences(layout, [&](int64_t begin, int64_t end) {
      cpu::query_summary_causal(const_rows(rows), rows.size(1), layout.offsets.data(), begin, end,
                                summary.mutable_data_ptr<float>());
    });
    return summary;
  }
  if (path == Path::reference) return query_summary_causal_reference(Q, layout);
  return by_own_norm(to_packed(to_padded(Q, layout).cumsum(1), layout));
}

at::Tensor query_summary_paper(const at::Tensor& Q, const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
  if (path == Path::reference) return query_summary_paper_reference(Q, layout);
#ifdef HAX_CUDA
  if (use_cuda_kernel("query_summary_paper", path, Q, [&] { return query_summary_cuda_refusal(Q); }))
    return query_summary_paper_cuda(Q, layout);
#endif
  // Padded places of a row of sums repeat its last real one.
  const at::Tensor sums = rounded_cumsum(to_padded(Q, layout));  // (B, max_seqlen, d)
  const at::Tensor wide = sums.to(compute_type(Q)), last = wide.select(1, layout.max_seqlen - 1);
  const at::Tensor square = wide.square().sum(1) + last.square() * (layout.padded_length - layout.max_seqlen);
  const at::Tensor norms = square.sqrt().to(Q.scalar_type()).clamp_min(kNormEps);
  return to_packed(sums / norms.unsqueeze(1), layout);
}

TopkMembership cumulative_topk(const at::Tensor& scores_in, int64_t k, const PackedLayout& layout, Path path,
                               int64_t max_pairs) {
  const at::NoGradGuard no_grad;
  if (k < 1) throw std::invalid_argument("cumulative_topk keeps at least one key, not " + std::to_string(k));
  const at::Tensor scores = scores_in.detach();
  if (use_cpu_kernel("cumulative_topk", path, scores)) {
    const at::Tensor s = scores.contiguous();
    at::Tensor evicted = at::empty({layout.total()}, layout.position.options());
    for_sequences(layout, [&](int64_t begin, int64_t end) {
      cpu::cumulative_topk(s.const_data_ptr<float>(), k, layout.offsets.data(), begin, end,
                           evicted.mutable_data_ptr<int64_t>());
    });
    return {evicted};
  }
#ifdef HAX_CUDA
  if (use_cuda_kernel("cumulative_topk", path, scores, [&] { return topk_cuda_refusal(k); }))
    return cumulative_topk_cuda(scores, k, layout);
#endif
  return {path == Path::reference ? evicted_reference(scores, k, layout)
                                  : evicted_composite(scores, k, layout, max_pairs)};
}

at::Tensor sampled_features(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                            const PackedLayout& layout, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  const int64_t B = layout.batch();
  const at::Tensor n = layout.cu_seqlens.diff().view({B, 1});
  const at::Tensor rows =
      (layout.cu_seqlens.slice(0, 0, B).view({B, 1}) + sampled.clamp_min(0).minimum(n - 1)).flatten();
  const at::Tensor keys = K.index_select(0, rows).masked_fill_((sampled >= n).view({-1, 1}), 0.0);
  return at::cat({keys.to(type), summary.index_select(0, rows).to(type)}, 1);
}

at::Tensor ranking_targets(const at::Tensor& Q_in, const at::Tensor& K_in, const at::Tensor& sampled,
                           const at::Tensor& pad_queries_in, const PackedLayout& layout, at::ScalarType type,
                           Path path) {
  const at::NoGradGuard no_grad;
#ifdef HAX_CUDA
  const auto refusal = [&] { return other_dtype("K", K_in.scalar_type(), {Q_in.scalar_type()}); };
  if (use_cuda_kernel("ranking_targets", path, Q_in, refusal))
    return ranking_targets_cuda(Q_in, K_in, sampled, pad_queries_in, layout, type);
#endif
  const at::Tensor Q = Q_in.to(type), K = K_in.to(type);
  const at::Tensor pad_queries =
      pad_queries_in.defined() ? pad_queries_in : at::zeros({layout.batch()}, layout.cu_seqlens.options());
  if (use_cpu_kernel("ranking_targets", path, Q)) {
    const at::Tensor q = as_rows(Q), k = as_rows(K), places = sampled.contiguous(),
                     pads = pad_queries.contiguous();
    at::Tensor targets = at::empty(sampled.sizes(), q.options());
    for_sequences(layout, [&](int64_t begin, int64_t end) {
      cpu::ranking_targets(const_rows(q), const_rows(k), q.size(1), places.const_data_ptr<int64_t>(),
                           places.size(1), pads.const_data_ptr<int64_t>(), layout.offsets.data(), begin, end,
                           targets.mutable_data_ptr<float>());
    });
    return targets;
  }
  return path == Path::reference ? ranking_targets_reference(Q, K, sampled, pad_queries, layout)
                                 : ranking_targets_composite(Q, K, sampled, pad_queries, layout);
}

at::Tensor ranking_loss(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid) {
  const auto wide = compute_type(scores);
  const auto pairs = [](const at::Tensor& x) { return std::pair(x.unsqueeze(2), x.unsqueeze(1)); };
  const auto [s_j, s_l] = pairs(scores);
  const auto [y_j, y_l] = pairs(targets);
  const auto [v_j, v_l] = pairs(valid);
  const at::Tensor weight = v_j.logical_and(v_l).to(wide);
  const at::Tensor target = ((y_j > y_l).to(wide) + (y_j >= y_l).to(wide)) * 0.5;
  const at::Tensor sum =
      at::binary_cross_entropy_with_logits((s_j - s_l).to(wide), target, weight, {}, at::Reduction::Sum);
  return sum / weight.sum().clamp_min(1.0);
}

}  // namespace hax::ops
