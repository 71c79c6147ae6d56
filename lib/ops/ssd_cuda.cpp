#include "lib/ops/ssd.h"

#include "lib/ops/autograd.h"
#include "lib/ops/columns.h"
#include "lib/ops/cuda/ssd.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/saved_layout.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// x, dt, B and C of one element type, A, D and dt_bias fp32.
class CudaSsd : public torch::autograd::Function<CudaSsd> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& dt,
                            const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
                            const at::Tensor& D, const at::Tensor& dt_bias, const PackedLayout& layout) {
    const cuda::SsdShape shape{x.size(1), x.size(2), B.size(1), B.size(2)};
    const variable_list in{as_rows(x),     as_rows(dt),    as_rows(B),          as_rows(C),
                           A.contiguous(), D.contiguous(), dt_bias.contiguous()};
    const auto device = cuda_layout(layout);
    at::Tensor y = at::empty(x.sizes(), x.options());
    at::Tensor states;
    with_element_type(x, [&](auto element) {
      using T = decltype(element);
      states = at::empty({cuda::ssd_state_elements<T>(device, shape)}, x.options());
      const at::Tensor work = device_scratch(cuda::ssd_forward_scratch_bytes<T>(device, shape), x);
      cuda::ssd_forward<T>(device, shape, kernel_input<T>(in), mutable_device_data<T>(y),
                           mutable_device_data<T>(states), work.mutable_data_ptr(), cuda_stream());
    });
    variable_list saved = in;
    saved.push_back(states);
    ctx->save_for_backward(saved);
    ctx->saved_data["sizes"] = std::vector<int64_t>{shape.H, shape.P, shape.G, shape.N};
    save_layout(ctx, layout);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const cuda::SsdShape shape{sizes[0], sizes[1], sizes[2], sizes[3]};
    const auto layout = saved_layout(ctx);
    const auto device = cuda_layout(layout);
    const at::Tensor &x = saved[0], &states = saved[7];
    const int64_t T_rows = x.size(0);
    const at::Tensor dy = as_rows(gradients[0]);
    ColumnGradients buffers;
    const at::Tensor dx = buffers.like(x), dB = buffers.like(saved[2]), dC = buffers.like(saved[3]);
    const at::Tensor ddt = at::empty({T_rows, shape.H}, x.options());
    const at::Tensor by_head = at::empty({3, shape.H}, saved[4].options());
    with_element_type(x, [&](auto element) {
      using T = decltype(element);
      const at::Tensor work = device_scratch(cuda::ssd_backward_scratch_bytes<T>(device, shape), x);
      const cuda::SsdGradient<T> out{mutable_device_rows<T>(dx), mutable_device_rows<T>(dB),
                                     mutable_device_rows<T>(dC), mutable_device_data<T>(ddt),
                                     mutable_device_data<float>(by_head)};
      cuda::ssd_backward<T>(device, shape, kernel_input<T>(saved), device_data<T>(states), device_rows<T>(dy),
                            out, work.mutable_data_ptr(), cuda_stream());
    });
    return {dx.view({T_rows, shape.H, shape.P}), ddt,        by_head[0], dB.view({T_rows, shape.G, shape.N}),
            dC.view({T_rows, shape.G, shape.N}), by_head[1], by_head[2], at::Tensor()};
  }

 private:
  template <class T>
  static cuda::SsdInput<T> kernel_input(const variable_list& in) {
    return {device_rows<T>(in[0]),    device_rows<T>(in[1]),     device_rows<T>(in[2]),
            device_rows<T>(in[3]),    device_data<float>(in[4]), device_data<float>(in[5]),
            device_data<float>(in[6])};
  }
};

}  // namespace

Refusal ssd_cuda_refusal(const at::Tensor& x, const at::Tensor& B) {
  if (cuda::ssd_fits({x.size(1), x.size(2), B.size(1), B.size(2)})) return {};
  return "head_dim " + std::to_string(x.size(2)) + " with d_state " + std::to_string(B.size(2)) +
         " has no kernel";
}

at::Tensor ssd_cuda(const SsdInputs& in, const PackedLayout& layout) {
  const auto type = in.x.scalar_type();
  return CudaSsd::apply(in.x, in.dt.to(type), in.A.to(at::kFloat), in.B.to(type), in.C.to(type),
                        in.D.to(at::kFloat), in.dt_bias.to(at::kFloat), layout);
}

}  // namespace hax::ops
