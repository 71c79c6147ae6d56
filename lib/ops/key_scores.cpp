#include "lib/ops/key_scores.h"

#include "lib/ops/cuda_paths.h"

namespace hax::ops {

at::Tensor key_scores(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp,
                      const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
#ifdef HAX_CUDA
  if (use_cuda_kernel(path, K) && has_key_scores_cuda(K, summary, mlp))
    return key_scores_cuda(K, summary, mlp, layout);
#endif
  return mlp.score(K, summary);
}

}  // namespace hax::ops
