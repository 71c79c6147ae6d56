#include "lib/ops/embedding.h"

#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& tokens, const PackedLayout& layout,
                     Path path) {
#ifdef HAX_CUDA
  if (use_cuda_kernel("embedding", path, weight)) return embedding_cuda(weight, tokens, layout);
#endif
  return at::embedding(weight, tokens);
}

}  // namespace hax::ops
