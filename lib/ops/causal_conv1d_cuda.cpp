#include "lib/ops/causal_conv1d.h"
#include "lib/ops/cuda/causal_conv1d.h"
#include "lib/ops/cuda_tensors.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaConv : public torch::autograd::Function<CudaConv> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, const PackedLayout& layout) {
    const at::Tensor rows = as_rows(x), taps = weight.contiguous(), shift = bias.contiguous();
    const cuda::ConvShape shape{taps.size(0), taps.size(1)};
    at::Tensor y = at::empty(x.sizes(), x.options());
    with_element_type(x, [&](auto element) {
      using T = decltype(element);
      cuda::conv_forward<T>(cuda_layout(layout), shape, device_rows<T>(rows), device_data<float>(taps),
                            device_data<float>(shift), mutable_device_data<T>(y), cuda_stream());
    });
    ctx->save_for_backward({rows, taps, shift});
    save_layout(ctx, layout);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &rows = saved[0], &taps = saved[1], &shift = saved[2];
    const auto layout = saved_layout(ctx);
    const cuda::ConvShape shape{taps.size(0), taps.size(1)};
    const at::Tensor dy = as_rows(gradients[0]);
    const at::Tensor dx = at::empty(rows.sizes(), rows.options());
    const at::Tensor dweight = at::empty(taps.sizes(), taps.options());
    const at::Tensor dbias = at::empty(shift.sizes(), shift.options());
    const at::Tensor work = device_scratch(cuda::conv_scratch_bytes(cuda_layout(layout), shape), rows);
    with_element_type(rows, [&](auto element) {
      using T = decltype(element);
      cuda::conv_backward<T>(cuda_layout(layout), shape, device_rows<T>(rows), device_data<float>(taps),
                             device_data<float>(shift), device_rows<T>(dy), mutable_device_data<T>(dx),
                             mutable_device_data<float>(dweight), mutable_device_data<float>(dbias),
                             work.mutable_data_ptr(), cuda_stream());
    });
    return {dx, dweight, dbias, at::Tensor()};
  }
};

}  // namespace

bool has_causal_conv1d_cuda(const at::Tensor& weight) { return weight.size(1) <= cuda::kConvWidest; }

at::Tensor causal_conv1d_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              const PackedLayout& layout) {
  return CudaConv::apply(x, weight.to(at::kFloat), bias.to(at::kFloat), layout);
}

}  // namespace hax::ops
