#include "lib/ops/key_scores.h"

#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {

at::Tensor key_scores(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp,
                      const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
#ifdef HAX_CUDA
  if (use_cuda_kernel("key_scores", path, K, [&] { return key_scores_cuda_refusal(K, summary, mlp); }))
    return key_scores_cuda(K, summary, mlp, layout);
#endif
  return mlp.score(K, summary);
}

}  // namespace hax::ops
