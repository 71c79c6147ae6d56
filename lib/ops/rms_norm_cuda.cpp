#include "lib/ops/cuda/rms_norm.h"

#include "lib/ops/cuda_tensors.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// f(X(), Y()): element types of input and output.
template <class F>
void with_types(const at::Tensor& x, at::ScalarType out, const F& f) {
  if (x.scalar_type() == at::kBFloat16)
    f(__nv_bfloat16(), __nv_bfloat16());
  else if (out == at::kBFloat16)
    f(float(), __nv_bfloat16());
  else
    f(float(), float());
}

// Rows that loads of pairs can read.
at::Tensor paired_rows(const at::Tensor& x) {
  const at::Tensor rows = as_rows(x);
  const bool aligned = reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 8 == 0 && rows.stride(0) % 2 == 0;
  return aligned ? rows : rows.clone(at::MemoryFormat::Contiguous);
}

class CudaNorm : public torch::autograd::Function<CudaNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps,
                            int64_t out) {
    const at::Tensor x_rows = paired_rows(x), w = weight.contiguous();
    const auto type = static_cast<at::ScalarType>(out);
    const at::Tensor y = at::empty(x.sizes(), x.options().dtype(type));
    with_types(x, type, [&](auto in_element, auto out_element) {
      using X = decltype(in_element);
      using Y = decltype(out_element);
      cuda::norm_forward<X, Y>(shape_of(x_rows, eps), device_rows<X>(x_rows), device_data<float>(w),
                               mutable_device_data<Y>(y), cuda_stream());
    });
    ctx->save_for_backward({x_rows, w});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["out"] = out;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &w = saved[1];
    const auto shape = shape_of(x, ctx->saved_data["eps"].toDouble());
    const at::Tensor dy = paired_rows(gradients[0]);
    const at::Tensor dx = at::empty(x.sizes(), x.options()), dw = at::empty(w.sizes(), w.options());
    const at::Tensor work = device_scratch(cuda::norm_scratch_bytes(shape), x);
    with_types(x, static_cast<at::ScalarType>(ctx->saved_data["out"].toInt()),
               [&](auto in_element, auto out_element) {
                 using X = decltype(in_element);
                 using Y = decltype(out_element);
                 cuda::norm_backward<X, Y>(shape, device_rows<X>(x), device_data<float>(w),
                                           device_rows<Y>(dy), mutable_device_data<X>(dx),
                                           mutable_device_data<float>(dw), work.mutable_data_ptr(),
                                           cuda_stream());
               });
    return {dx, dw, at::Tensor(), at::Tensor()};
  }

 private:
  static cuda::NormShape shape_of(const at::Tensor& x, double eps) {
    return {x.size(0), x.size(1), static_cast<float>(eps)};
  }
};

}  // namespace

bool has_rms_norm_cuda(const at::Tensor& x, at::ScalarType out) {
  return (out == x.scalar_type() || (x.scalar_type() == at::kFloat && out == at::kBFloat16)) &&
         x.size(1) % 2 == 0 && x.size(1) <= cuda::kNormWidest;
}

at::Tensor rms_norm_cuda(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out) {
  return CudaNorm::apply(x, weight.to(at::kFloat), eps, static_cast<int64_t>(out));
}

}  // namespace hax::ops
