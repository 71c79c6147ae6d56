#include "lib/ops/cuda/key_selection.h"

#include <array>

#include "lib/ops/cuda_tensors.h"
#include "lib/ops/key_selection.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaRankingLoss : public torch::autograd::Function<CudaRankingLoss> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& scores, const at::Tensor& targets,
                            const at::Tensor& valid) {
    const int64_t batch = scores.size(0), k = scores.size(1);
    const auto floats = [&](at::IntArrayRef sizes) {
      return at::empty(sizes, scores.options().dtype(at::kFloat));
    };
    const at::Tensor loss = floats({}), slopes = floats({batch, k}), work = floats({2 * batch});
    const at::Tensor s = scores.contiguous(), y = targets.contiguous(), v = valid.contiguous();
    with_element_type(s, [&](auto score) {
      with_element_type(y, [&](auto target) {
        using S = decltype(score);
        using Y = decltype(target);
        cuda::ranking_loss<S, Y>(batch, k, device_data<S>(s), device_data<Y>(y), device_data<bool>(v),
                                 mutable_device_data<float>(loss), mutable_device_data<float>(slopes),
                                 mutable_device_data<float>(work), cuda_stream());
      });
    });
    ctx->save_for_backward({slopes});
    ctx->saved_data["type"] = static_cast<int64_t>(scores.scalar_type());
    return loss;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    return {(ctx->get_saved_variables()[0] * gradients[0]).to(type), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

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

at::Tensor sampled_features_cuda(const at::Tensor& K_in, const at::Tensor& summary_in,
                                 const at::Tensor& sampled_in, const PackedLayout& layout,
                                 at::ScalarType type) {
  const at::Tensor K = as_rows(K_in), summary = as_rows(summary_in), sampled = sampled_in.contiguous();
  const int64_t d = K.size(1);
  const at::Tensor features = at::empty({sampled.numel(), 2 * d}, K.options().dtype(type));
  with_element_type(K, [&](auto key) {
    with_element_type(summary, [&](auto sum) {
      with_element_type(features, [&](auto feature) {
        using T = decltype(key);
        using S = decltype(sum);
        using W = decltype(feature);
        cuda::sampled_features<T, S, W>(cuda_layout(layout), d, sampled.size(1), device_rows<T>(K),
                                        device_rows<S>(summary), device_data<int64_t>(sampled),
                                        mutable_device_data<W>(features), cuda_stream());
      });
    });
  });
  return features;
}

at::Tensor ranking_targets_cuda(const at::Tensor& Q_in, const at::Tensor& K_in, const at::Tensor& sampled_in,
                                const at::Tensor& pad_queries_in, const PackedLayout& layout,
                                at::ScalarType type) {
  const at::Tensor Q = as_rows(Q_in), K = as_rows(K_in), sampled = sampled_in.contiguous(),
                   pad_queries = pad_queries_in.contiguous();
  const at::Tensor targets = at::empty(sampled.sizes(), Q.options().dtype(type));
  const auto fill = [&](auto in, auto out) {
    using T = decltype(in);
    using Y = decltype(out);
    cuda::ranking_targets<T, Y>(cuda_layout(layout), Q.size(1), sampled.size(1), device_rows<T>(Q),
                                device_rows<T>(K), device_data<int64_t>(sampled),
                                device_data<int64_t>(pad_queries), mutable_device_data<Y>(targets),
                                cuda_stream());
  };
  if (Q.scalar_type() == at::kFloat)
    fill(float(), float());
  else if (type == at::kFloat)
    fill(__nv_bfloat16(), float());
  else
    fill(__nv_bfloat16(), __nv_bfloat16());
  return targets;
}

at::Tensor ranking_loss_cuda(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid) {
  return CudaRankingLoss::apply(scores, targets, valid);
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
