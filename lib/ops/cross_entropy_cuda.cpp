#include "lib/ops/cuda/cross_entropy.h"

#include "lib/ops/autograd.h"
#include "lib/ops/cuda_tensors.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaCrossEntropy : public torch::autograd::Function<CudaCrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits_in, const at::Tensor& target_in,
                               bool rounds) {
    const at::Tensor logits = logits_in.contiguous(), target = target_in.contiguous();
    const cuda::LossShape shape{logits.size(0), logits.size(1)};
    const auto floats = [&](at::IntArrayRef sizes) {
      return at::empty(sizes, logits.options().dtype(at::kFloat));
    };
    const at::Tensor normaliser = floats({shape.rows}), loss = floats({}), inverse_count = floats({});
    const at::Tensor correct = at::empty({shape.rows}, logits.options().dtype(at::kBool));
    const at::Tensor work = floats({cuda::loss_scratch_floats(shape)});
    with_element_type(logits, [&](auto element) {
      using T = decltype(element);
      cuda::cross_entropy_forward<T>(shape, rounds, device_data<T>(logits), device_data<int64_t>(target),
                                     mutable_device_data<float>(normaliser),
                                     mutable_device_data<bool>(correct), mutable_device_data<float>(loss),
                                     mutable_device_data<float>(inverse_count),
                                     mutable_device_data<float>(work), cuda_stream());
    });
    ctx->save_for_backward({logits, target, normaliser, inverse_count});
    ctx->saved_data["rounds"] = rounds;
    ctx->mark_non_differentiable({correct});
    ctx->set_materialize_grads(false);
    return {loss, correct};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &target = saved[1];
    const at::Tensor dlogits = at::empty_like(logits), dloss = gradients[0].to(at::kFloat).contiguous();
    with_element_type(logits, [&](auto element) {
      using T = decltype(element);
      cuda::cross_entropy_backward<T>(
          {logits.size(0), logits.size(1)}, ctx->saved_data["rounds"].toBool(), device_data<T>(logits),
          device_data<int64_t>(target), device_data<float>(saved[2]), device_data<float>(dloss),
          device_data<float>(saved[3]), mutable_device_data<T>(dlogits), cuda_stream());
    });
    return {dlogits, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

CrossEntropy cross_entropy_cuda(const at::Tensor& logits, const at::Tensor& target, bool rounds) {
  const auto result = CudaCrossEntropy::apply(logits, target, rounds);
  return {result[0], result[1]};
}

}  // namespace hax::ops
