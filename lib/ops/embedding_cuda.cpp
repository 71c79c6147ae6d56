#include "lib/ops/cuda/embedding.h"

#include "lib/ops/autograd.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/embedding.h"
#include "lib/ops/saved_layout.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaEmbedding : public torch::autograd::Function<CudaEmbedding> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& tokens,
                            const PackedLayout& layout) {
    const at::Tensor rows = weight.contiguous();
    const at::Tensor out = at::empty({tokens.size(0), rows.size(1)}, rows.options());
    with_element_type(rows, [&](auto element) {
      using T = decltype(element);
      cuda::embedding_forward<T>(cuda_layout(layout), rows.size(1), device_data<T>(rows),
                                 device_data<int64_t>(tokens), mutable_device_data<T>(out), cuda_stream());
    });
    ctx->save_for_backward({tokens});
    ctx->saved_data["vocab"] = rows.size(0);
    save_layout(ctx, layout);
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor tokens = ctx->get_saved_variables()[0], dout = gradients[0].contiguous();
    const int64_t vocab = ctx->saved_data["vocab"].toInt(), d = dout.size(1);
    const auto saved = saved_layout(ctx);
    const auto layout = cuda_layout(saved);
    const at::Tensor dweight = at::empty({vocab, d}, dout.options());
    const at::Tensor work = device_scratch(cuda::embedding_scratch_bytes(layout, vocab, d), dout);
    with_element_type(dout, [&](auto element) {
      using T = decltype(element);
      cuda::embedding_backward<T>(layout, vocab, d, device_data<int64_t>(tokens), device_data<T>(dout),
                                  mutable_device_data<T>(dweight), work.mutable_data_ptr(), cuda_stream());
    });
    return {dweight, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor embedding_cuda(const at::Tensor& weight, const at::Tensor& tokens, const PackedLayout& layout) {
  return CudaEmbedding::apply(weight, tokens.contiguous(), layout);
}

}  // namespace hax::ops
