#include "lib/ops/cuda/key_selection.h"

#include <array>

#include "lib/ops/cuda_tensors.h"
#include "lib/ops/key_selection.h"

namespace hax::ops {
Refusal topk_cuda_refusal(int64_t k) { return above("k", k, cuda::kTopkMost); }

Refusal query_summary_cuda_refusal(const at::Tensor& Q) {
  return above("d_qk", Q.size(1), cuda::kSummaryWidest);
}

at::Tensor query_summary_causal_cuda(const at::Tensor& Q_in, const PackedLayout& layout) {
  const at::Tensor Q = as_rows(Q_in);
  const at::Tensor summary = at::zeros(Q.sizes(), Q.options().dtype(at::kFloat));
  const at::Tensor work =
      at::empty({cuda::summary_scratch_floats(cuda_layout(layout), Q.size(1))}, summary.options());
  with_element_type(Q, [&](auto element) {
    using T = decltype(element);
    cuda::query_summary_causal<T>(cuda_layout(layout), Q.size(1), device_rows<T>(Q),
                                  mutable_device_data<float>(summary), mutable_device_data<float>(work),
                                  cuda_stream());
  });
  return summary;
}

at::Tensor query_summary_paper_cuda(const at::Tensor& Q_in, const PackedLayout& layout) {
  const at::Tensor Q = as_rows(Q_in);
  const at::Tensor summary = at::zeros(Q.sizes(), Q.options());
  with_element_type(Q, [&](auto element) {
    using T = decltype(element);
    cuda::query_summary_paper<T>(cuda_layout(layout), Q.size(1), layout.padded_length, device_rows<T>(Q),
                                 mutable_device_data<T>(summary), cuda_stream());
  });
  return summary;
}

TopkMembership cumulative_topk_cuda(const at::Tensor& scores, int64_t k, const PackedLayout& layout) {
  const at::Tensor s = scores.contiguous();
  const at::Tensor evicted = at::empty({layout.total()}, layout.position.options());
  with_element_type(s, [&](auto element) {
    using T = decltype(element);
    cuda::cumulative_topk<T>(cuda_layout(layout), k, device_data<T>(s), mutable_device_data<int64_t>(evicted),
                             cuda_stream());
  });
  return {evicted};
}

at::Tensor ranking_targets_cuda(const at::Tensor& Q_in, const at::Tensor& K_in, const at::Tensor& sampled_in,
                                const at::Tensor& pad_queries, const PackedLayout& layout,
                                at::ScalarType type) {
  const at::Tensor Q = as_rows(Q_in), K = as_rows(K_in), sampled = sampled_in.contiguous();
  const at::Tensor pads = pad_queries.defined() ? pad_queries.contiguous() : at::Tensor();
  const at::Tensor targets = at::empty(sampled.sizes(), Q.options().dtype(type));
  const auto fill = [&](auto in, auto out) {
    using T = decltype(in);
    using Y = decltype(out);
    cuda::ranking_targets<T, Y>(cuda_layout(layout), Q.size(1), sampled.size(1), device_rows<T>(Q),
                                device_rows<T>(K), device_data<int64_t>(sampled),
                                pads.defined() ? device_data<int64_t>(pads) : nullptr,
                                mutable_device_data<Y>(targets), cuda_stream());
  };
  if (Q.scalar_type() == at::kFloat)
    fill(float(), float());
  else if (type == at::kFloat)
    fill(__nv_bfloat16(), float());
  else
    fill(__nv_bfloat16(), __nv_bfloat16());
  return targets;
}

Refusal key_scores_cuda_refusal(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp) {
  const auto known = [](const char* name, const at::Tensor& x) {
    return other_dtype(name, x.scalar_type(), {at::kFloat, at::kBFloat16});
  };
  const Refusal dtypes = first_refusal({other_dtype("K", K.scalar_type(), {at::kBFloat16}),
                                        known("the weights", mlp.w1), known("summary", summary)});
  if (!dtypes.empty() || cuda::has_key_scores(K.size(1))) return dtypes;
  return "d_qk " + std::to_string(K.size(1)) + " has no kernel";
}

at::Tensor key_scores_cuda(const at::Tensor& K_in, const at::Tensor& summary_in, const ScoreMlp& mlp,
                           const PackedLayout& layout) {
  const at::Tensor K = as_rows(K_in), summary = as_rows(summary_in);
  const std::array<at::Tensor, 6> w = {mlp.w1.contiguous(), mlp.b1.contiguous(), mlp.w2.contiguous(),
                                       mlp.b2.contiguous(), mlp.w3.contiguous(), mlp.b3.contiguous()};
  const at::Tensor scores = at::empty({K.size(0)}, w[0].options());
  with_element_type(summary, [&](auto summary_element) {
    with_element_type(w[0], [&](auto weight_element) {
      using S = decltype(summary_element);
      using W = decltype(weight_element);
      const auto weight = [&](size_t i) { return device_data<W>(w[i]); };
      const cuda::ScoreWeights<W> weights{weight(0), weight(1), weight(2), weight(3), weight(4), weight(5)};
      cuda::key_scores<S, W>(cuda_layout(layout), K.size(1), device_rows<__nv_bfloat16>(K),
                             device_rows<S>(summary), weights, mutable_device_data<W>(scores), cuda_stream());
    });
  });
  return scores;
}

}  // namespace hax::ops
