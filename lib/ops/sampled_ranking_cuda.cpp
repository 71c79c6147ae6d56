#include "lib/ops/cuda/sampled_ranking.h"

#include <array>

#include "lib/ops/autograd.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/sampled_ranking.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

cuda::FloatArray float_array(const at::Tensor& x) {
  return {x.const_data_ptr(), x.scalar_type() == at::kBFloat16};
}

// The loss is made together with its gradients, which the backward pass only sums over sequences.
class CudaSampledRanking : public torch::autograd::Function<CudaSampledRanking> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& w1, const at::Tensor& b1,
                            const at::Tensor& w2, const at::Tensor& b2, const at::Tensor& w3,
                            const at::Tensor& b3, const at::Tensor& K_in, const at::Tensor& summary_in,
                            const at::Tensor& sampled_in, const at::Tensor& targets_in,
                            const PackedLayout& layout, bool rounds_pairs) {
    const at::Tensor K = as_rows(K_in), summary = as_rows(summary_in), sampled = sampled_in.contiguous(),
                     targets = targets_in.contiguous();
    const std::array<at::Tensor, 6> w = {w1.contiguous(), b1.contiguous(), w2.contiguous(),
                                         b2.contiguous(), w3.contiguous(), b3.contiguous()};
    const cuda::RankingShape shape{K.size(1), sampled.size(1)};
    const auto floats = w1.options().dtype(at::kFloat);
    const at::Tensor parts = at::empty({layout.batch(), shape.weights() + 2}, floats);
    const at::Tensor mean = at::empty({2}, floats);
    const cuda::RankingInput in{float_array(K),    float_array(summary),          K.stride(0),
                                summary.stride(0), device_data<int64_t>(sampled), float_array(targets)};
    with_element_type(w1, [&](auto element) {
      using W = decltype(element);
      const auto weight = [&](size_t i) { return device_data<W>(w[i]); };
      cuda::sampled_ranking_forward<W>(
          cuda_layout(layout), shape, in, {weight(0), weight(1), weight(2), weight(3), weight(4), weight(5)},
          rounds_pairs, mutable_device_data<float>(parts), mutable_device_data<float>(mean), cuda_stream());
    });
    ctx->save_for_backward({parts, mean});
    ctx->saved_data["d"] = shape.d;
    ctx->saved_data["k"] = shape.k;
    ctx->saved_data["type"] = static_cast<int64_t>(w1.scalar_type());
    return mean[0];
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &parts = saved[0], dloss = gradients[0].to(at::kFloat).contiguous();
    const cuda::RankingShape shape{ctx->saved_data["d"].toInt(), ctx->saved_data["k"].toInt()};
    const auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    const at::Tensor all = at::empty({shape.weights()}, parts.options().dtype(type));
    with_element_type(all, [&](auto element) {
      using W = decltype(element);
      cuda::sampled_ranking_backward<W>(parts.size(0), shape, device_data<float>(parts),
                                        device_data<float>(saved[1]), device_data<float>(dloss),
                                        mutable_device_data<W>(all), cuda_stream());
    });
    const int64_t F = shape.width();
    const auto pieces = all.split_with_sizes({F * F, F, F * F, F, F, 1});
    variable_list out{pieces[0].view({F, F}), pieces[1], pieces[2].view({F, F}), pieces[3],
                      pieces[4].view({1, F}), pieces[5]};
    out.resize(12);
    return out;
  }
};

}  // namespace

Refusal sampled_ranking_cuda_refusal(const at::Tensor& K, const at::Tensor& summary,
                                     const at::Tensor& sampled, const at::Tensor& targets,
                                     const ScoreMlp& mlp, at::ScalarType pairs) {
  const auto known = [](const char* name, const at::Tensor& x) {
    return other_dtype(name, x.scalar_type(), {at::kFloat, at::kBFloat16});
  };
  const Refusal dtypes =
      first_refusal({known("summary", summary), known("targets", targets), known("the weights", mlp.w1),
                     other_dtype("pairs", pairs, {mlp.w1.scalar_type(), at::kFloat})});
  if (!dtypes.empty() || cuda::has_sampled_ranking({K.size(1), sampled.size(1)})) return dtypes;
  return "d_qk " + std::to_string(K.size(1)) + " with " + std::to_string(sampled.size(1)) +
         " samples has no kernel";
}

at::Tensor sampled_ranking_cuda(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                                const at::Tensor& targets, const ScoreMlp& mlp, const PackedLayout& layout,
                                at::ScalarType pairs) {
  return CudaSampledRanking::apply(mlp.w1, mlp.b1, mlp.w2, mlp.b2, mlp.w3, mlp.b3, K, summary, sampled,
                                   targets, layout, pairs == at::kBFloat16);
}

}  // namespace hax::ops
