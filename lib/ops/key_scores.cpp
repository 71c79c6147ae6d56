#include "lib/ops/key_scores.h"

#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/key_selection.h"

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

SummariesAndScores causal_scores(const at::Tensor& Q, const at::Tensor& K, const ScoreMlp& mlp,
                                 const PackedLayout& layout, Path path,
                                 [[maybe_unused]] const at::Tensor& sums) {
#ifdef HAX_CUDA
  if (path == Path::automatic && has_causal_scores_cuda(Q, K, mlp)) {
    const at::NoGradGuard no_grad;
    return causal_scores_cuda(Q, K, mlp, layout, sums);
  }
#endif
  const at::Tensor summary = query_summary_causal(Q, layout, path);
  return {summary, key_scores(K, summary, mlp, layout, path)};
}

}  // namespace hax::ops
