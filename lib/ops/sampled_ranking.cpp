#include "lib/ops/sampled_ranking.h"

#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/key_selection.h"

namespace hax::ops {

at::Tensor sampled_ranking(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                           const at::Tensor& targets, const ScoreMlp& mlp, const PackedLayout& layout,
                           at::ScalarType pairs, Path path) {
#ifdef HAX_CUDA
  const auto refusal = [&] { return sampled_ranking_cuda_refusal(K, summary, sampled, targets, mlp, pairs); };
  if (use_cuda_kernel("sampled_ranking", path, K, refusal))
    return sampled_ranking_cuda(K, summary, sampled, targets, mlp, layout, pairs);
#endif
  const at::Tensor features = sampled_features(K, summary, sampled, layout, mlp.w1.scalar_type());
  const at::Tensor scores = mlp.score(features).view(sampled.sizes());
  return ranking_loss(scores.to(pairs), targets, sampled >= 0);
}

}  // namespace hax::ops
