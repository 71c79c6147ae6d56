#include "lib/ops/gate.h"

#include <optional>

#include "lib/ops/autograd.h"
#include "lib/ops/columns.h"
#include "lib/ops/cuda/gate.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/leaf_gradients.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using Maybe = std::optional<at::Tensor>;

// y, z and O of one element type, E and weight fp32.
class CudaGate : public torch::autograd::Function<CudaGate> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& y, const at::Tensor& z, const Maybe& O,
                            const Maybe& E, const Maybe& weight, double eps, bool apart) {
    const variable_list in{as_rows(y), as_rows(z), O ? as_rows(*O) : at::Tensor(),
                           E ? E->contiguous() : at::Tensor(), weight ? weight->contiguous() : at::Tensor()};
    at::Tensor out = at::empty(y.sizes(), y.options());
    with_element_type(y, [&](auto element) {
      using T = decltype(element);
      cuda::gate_forward<T>(shape_of(y, eps), kernel_input<T>(in), mutable_device_data<T>(out),
                            cuda_stream());
    });
    ctx->save_for_backward(in);
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["apart"] = apart;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto in = ctx->get_saved_variables();
    const bool branch = in[2].defined(), normed = in[4].defined();
    const auto shape = shape_of(in[0], ctx->saved_data["eps"].toDouble());
    const at::Tensor upstream = as_rows(gradients[0]);
    ColumnGradients buffers;
    const at::Tensor dy = buffers.like(in[0]), dz = buffers.like(in[1]);
    const at::Tensor dO = branch ? buffers.like(in[2]) : at::Tensor();
    const auto floats = in[0].options().dtype(at::kFloat);
    const at::Tensor parts = at::empty({cuda::gate_parts_floats(shape)}, floats);
    with_element_type(in[0], [&](auto element) {
      using T = decltype(element);
      const cuda::GateGradient<T> out{mutable_device_rows<T>(dy), mutable_device_rows<T>(dz),
                                      branch ? mutable_device_rows<T>(dO) : cuda::Rows<T>{nullptr, 0},
                                      mutable_device_data<float>(parts)};
      cuda::gate_backward<T>(shape, kernel_input<T>(in), device_rows<T>(upstream), out, cuda_stream());
    });
    const auto of_parameters = parameter_gradients(
        ctx->saved_data["apart"].toBool(), {in[3], in[4]}, {parts}, [&]() -> variable_list {
          if (!branch && !normed) return {at::Tensor(), at::Tensor()};
          const at::Tensor sums = at::empty({2, shape.d}, floats);
          cuda::gate_sums(shape, device_data<float>(parts), mutable_device_data<float>(sums), cuda_stream());
          return {branch ? sums[1] : at::Tensor(), normed ? sums[0] : at::Tensor()};
        });
    return {dy, dz, dO, of_parameters[0], of_parameters[1], at::Tensor(), at::Tensor()};
  }

 private:
  static cuda::GateShape shape_of(const at::Tensor& y, double eps) {
    return {y.size(0), y.size(1), static_cast<float>(eps)};
  }
  template <class T>
  static cuda::GateInput<T> kernel_input(const variable_list& in) {
    const auto parameter = [](const at::Tensor& x) { return x.defined() ? device_data<float>(x) : nullptr; };
    return {device_rows<T>(in[0]), device_rows<T>(in[1]),
            in[2].defined() ? device_rows<T>(in[2]) : cuda::Rows<const T>{nullptr, 0}, parameter(in[3]),
            parameter(in[4])};
  }
};

}  // namespace

Refusal gate_cuda_refusal(const GateInputs& in) {
  const auto type = in.y.scalar_type();
  return first_refusal({other_dtype("z", in.z.scalar_type(), {type}),
                        in.O.defined() ? other_dtype("O", in.O.scalar_type(), {type}) : Refusal(),
                        in.y.size(0) > 0 ? Refusal() : Refusal("there are no rows"),
                        above("width", in.y.size(1), cuda::kGateWidest)});
}

at::Tensor gate_cuda(const GateInputs& in, const at::Tensor& weight, double eps) {
  const bool branch = in.O.defined();
  const auto E = branch ? Maybe(in.E.to(at::kFloat)) : std::nullopt,
             w = weight.defined() ? Maybe(weight.to(at::kFloat)) : std::nullopt;
  return CudaGate::apply(in.y, in.z, branch ? Maybe(in.O) : std::nullopt, E, w, eps,
                         can_be_apart({E.value_or(at::Tensor()), w.value_or(at::Tensor())}));
}

}  // namespace hax::ops
