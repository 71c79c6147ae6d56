#include "lib/ops/selective_scan.h"

#include "lib/ops/autograd.h"
#include "lib/ops/columns.h"
#include "lib/ops/cuda/selective_scan.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/saved_layout.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// u, delta, B and C of one element type, A, D and dt_bias fp32.
class CudaScan : public torch::autograd::Function<CudaScan> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& u, const at::Tensor& delta,
                            const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
                            const at::Tensor& D, const at::Tensor& dt_bias, const PackedLayout& layout) {
    const cuda::ScanShape shape{u.size(1), B.size(1)};
    const variable_list in{as_rows(u),     as_rows(delta), as_rows(B),          as_rows(C),
                           A.contiguous(), D.contiguous(), dt_bias.contiguous()};
    const auto device = cuda_layout(layout);
    at::Tensor y = at::empty(u.sizes(), u.options());
    const at::Tensor states = at::empty({cuda::scan_state_floats(device, shape)}, in[4].options());
    const at::Tensor work = device_scratch(cuda::scan_forward_scratch_bytes(device, shape), u);
    with_element_type(u, [&](auto element) {
      using T = decltype(element);
      cuda::scan_forward<T>(device, shape, kernel_input<T>(in), mutable_device_data<T>(y),
                            mutable_device_data<float>(states), work.mutable_data_ptr(), cuda_stream());
    });
    variable_list saved = in;
    saved.push_back(states);
    ctx->save_for_backward(saved);
    save_layout(ctx, layout);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &u = saved[0], &A = saved[4], &states = saved[7];
    const cuda::ScanShape shape{A.size(0), A.size(1)};
    const auto layout = saved_layout(ctx);
    const auto device = cuda_layout(layout);
    const at::Tensor dy = as_rows(gradients[0]);
    const at::Tensor du = at::empty(u.sizes(), u.options()), ddelta = at::empty_like(du);
    ColumnGradients buffers;
    const at::Tensor dB = buffers.like(saved[2]), dC = buffers.like(saved[3]);
    const at::Tensor by_channel = at::empty({A.numel() + 2 * shape.channels}, A.options());
    const at::Tensor work = device_scratch(cuda::scan_backward_scratch_bytes(device, shape), u);
    with_element_type(u, [&](auto element) {
      using T = decltype(element);
      const cuda::ScanGradient<T> out{mutable_device_data<T>(du), mutable_device_data<T>(ddelta),
                                      mutable_device_rows<T>(dB), mutable_device_rows<T>(dC),
                                      mutable_device_data<float>(by_channel)};
      cuda::scan_backward<T>(device, shape, kernel_input<T>(saved), device_data<float>(states),
                             device_rows<T>(dy), out, work.mutable_data_ptr(), cuda_stream());
    });
    return {du,
            ddelta,
            by_channel.narrow(0, 0, A.numel()).view(A.sizes()),
            dB,
            dC,
            by_channel.narrow(0, A.numel(), shape.channels),
            by_channel.narrow(0, A.numel() + shape.channels, shape.channels),
            at::Tensor()};
  }

 private:
  template <class T>
  static cuda::ScanInput<T> kernel_input(const variable_list& in) {
    return {device_rows<T>(in[0]),    device_rows<T>(in[1]),     device_rows<T>(in[2]),
            device_rows<T>(in[3]),    device_data<float>(in[4]), device_data<float>(in[5]),
            device_data<float>(in[6])};
  }
};

}  // namespace

Refusal selective_scan_cuda_refusal(const at::Tensor& B) {
  return above("d_state", B.size(1), cuda::kScanLargestState);
}

at::Tensor selective_scan_cuda(const SelectiveScanInputs& in, const PackedLayout& layout) {
  const auto type = in.u.scalar_type();
  return CudaScan::apply(in.u, in.delta.to(type), in.A.to(at::kFloat), in.B.to(type), in.C.to(type),
                         in.D.to(at::kFloat), in.dt_bias.to(at::kFloat), layout);
}

}  // namespace hax::ops
