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
    const at::Tensor loss = at::empty({}, scores.options()), slopes = at::empty({batch, k}, scores.options());
    const at::Tensor work = at::empty({2 * batch}, scores.options());
    const at::Tensor s = scores.contiguous(), y = targets.contiguous(), v = valid.contiguous();
    cuda::ranking_loss(batch, k, device_data<float>(s), device_data<float>(y), device_data<bool>(v),
                       mutable_device_data<float>(loss), mutable_device_data<float>(slopes),
                       mutable_device_data<float>(work), cuda_stream());
    ctx->save_for_backward({slopes});
    return loss;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    return {ctx->get_saved_variables()[0] * gradients[0], at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool has_topk_cuda(int64_t k) { return k <= cuda::kTopkMost; }

bool has_query_summary_cuda(const at::Tensor& Q) { return Q.size(1) <= cuda::kSummaryWidest; }

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

TopkMembership cumulative_topk_cuda(const at::Tensor& scores, int64_t k, const PackedLayout& layout) {
  const at::Tensor s = scores.contiguous();
  const at::Tensor evicted = at::empty({layout.total()}, layout.position.options());
  cuda::cumulative_topk(cuda_layout(layout), k, device_data<float>(s), mutable_device_data<int64_t>(evicted),
                        cuda_stream());
  return {evicted};
}

at::Tensor ranking_targets_cuda(const at::Tensor& Q_in, const at::Tensor& K_in, const at::Tensor& sampled_in,
                                const at::Tensor& pad_queries_in, const PackedLayout& layout) {
  const at::Tensor Q = as_rows(Q_in), K = as_rows(K_in), sampled = sampled_in.contiguous(),
                   pad_queries = pad_queries_in.contiguous();
  const at::Tensor targets = at::empty(sampled.sizes(), Q.options().dtype(at::kFloat));
  with_element_type(Q, [&](auto element) {
    using T = decltype(element);
    cuda::ranking_targets<T>(cuda_layout(layout), Q.size(1), sampled.size(1), device_rows<T>(Q),
                             device_rows<T>(K), device_data<int64_t>(sampled),
                             device_data<int64_t>(pad_queries), mutable_device_data<float>(targets),
                             cuda_stream());
  });
  return targets;
}

at::Tensor ranking_loss_cuda(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid) {
  return CudaRankingLoss::apply(scores, targets, valid);
}

bool has_key_scores_cuda(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp) {
  const bool fp32_weights = mlp.w1.scalar_type() == at::kFloat && summary.scalar_type() == at::kFloat;
  return fp32_weights && K.scalar_type() == at::kBFloat16 && cuda::has_key_scores(K.size(1));
}

at::Tensor key_scores_cuda(const at::Tensor& K_in, const at::Tensor& summary, const ScoreMlp& mlp,
                           const PackedLayout& layout) {
  const at::Tensor K = as_rows(K_in);
  const std::array<at::Tensor, 6> w = {mlp.w1.contiguous(), mlp.b1.contiguous(), mlp.w2.contiguous(),
                                       mlp.b2.contiguous(), mlp.w3.contiguous(), mlp.b3.contiguous()};
  const auto weight = [&](size_t i) { return device_data<float>(w[i]); };
  const at::Tensor scores = at::empty({K.size(0)}, summary.options());
  cuda::key_scores(cuda_layout(layout), K.size(1), device_rows<__nv_bfloat16>(K), device_rows<float>(summary),
                   {weight(0), weight(1), weight(2), weight(3), weight(4), weight(5)},
                   mutable_device_data<float>(scores), cuda_stream());
  return scores;
}

}  // namespace hax::ops
