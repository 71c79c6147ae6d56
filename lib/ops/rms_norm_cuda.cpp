#include "lib/ops/cuda/rms_norm.h"

#include <optional>

#include "lib/ops/autograd.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/leaf_gradients.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;

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

template <class T>
cuda::Rows<const T> rows_or_none(const at::Tensor& rows) {
  return rows.defined() ? device_rows<T>(rows) : cuda::Rows<const T>{nullptr, 0};
}

cuda::NormShape shape_of(const at::Tensor& x, double eps) {
  return {x.size(0), x.size(1), static_cast<float>(eps)};
}

at::Tensor partial_sums(const cuda::NormShape& shape, const at::Tensor& weight) {
  return at::empty({cuda::norm_parts_floats(shape)}, weight.options());
}

at::Tensor weight_gradient(AutogradContext* ctx, const cuda::NormShape& shape, const at::Tensor& weight,
                           const at::Tensor& parts) {
  return parameter_gradients(ctx->saved_data["apart"].toBool(), {weight}, {parts}, [&]() -> variable_list {
    const at::Tensor dw = at::empty(weight.sizes(), weight.options());
    cuda::norm_sums(shape, device_data<float>(parts), mutable_device_data<float>(dw), cuda_stream());
    return {dw};
  })[0];
}

// -> {sum, norm}; without h the sum is x itself.
class CudaNorm : public torch::autograd::Function<CudaNorm> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& h,
                               const at::Tensor& weight, double eps, int64_t out, bool apart) {
    const at::Tensor x_rows = paired_rows(x), h_rows = h ? paired_rows(*h) : at::Tensor();
    const at::Tensor w = weight.contiguous();
    const auto type = static_cast<at::ScalarType>(out);
    const at::Tensor sum = h ? at::empty(x.sizes(), x.options()) : x;
    const at::Tensor y = at::empty(x.sizes(), x.options().dtype(type));
    with_types(x, type, [&](auto in_element, auto out_element) {
      using X = decltype(in_element);
      using Y = decltype(out_element);
      cuda::norm_forward<X, Y>(shape_of(x_rows, eps), nullptr, device_rows<X>(x_rows),
                               rows_or_none<Y>(h_rows), device_data<float>(w),
                               h ? mutable_device_data<X>(sum) : nullptr, mutable_device_data<Y>(y),
                               cuda_stream());
    });
    ctx->save_for_backward({h ? sum : x_rows, w});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["out"] = out;
    ctx->saved_data["added"] = h.has_value();
    ctx->saved_data["apart"] = apart;
    ctx->set_materialize_grads(false);
    return {sum, y};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &w = saved[1];
    const auto type = static_cast<at::ScalarType>(ctx->saved_data["out"].toInt());
    const bool added = ctx->saved_data["added"].toBool();
    const at::Tensor none;
    if (!gradients[1].defined())
      return {gradients[0], added && gradients[0].defined() ? gradients[0].to(type) : none, none, none, none,
              none};
    const auto shape = shape_of(x, ctx->saved_data["eps"].toDouble());
    const at::Tensor dsum = gradients[0].defined() ? paired_rows(gradients[0]) : none;
    const at::Tensor dy = paired_rows(gradients[1]);
    const at::Tensor dx = at::empty(x.sizes(), x.options()), parts = partial_sums(shape, w);
    const bool two = added && type != x.scalar_type();  // gradients, of x and of h
    const at::Tensor dh = two ? at::empty(x.sizes(), x.options().dtype(type)) : none;
    with_types(x, type, [&](auto in_element, auto out_element) {
      using X = decltype(in_element);
      using Y = decltype(out_element);
      cuda::norm_backward<X, Y>(shape, nullptr, device_rows<X>(x), device_data<float>(w), device_rows<Y>(dy),
                                rows_or_none<X>(dsum), mutable_device_data<X>(dx),
                                two ? mutable_device_data<Y>(dh) : nullptr, mutable_device_data<float>(parts),
                                cuda_stream());
    });
    return {dx, two || !added ? dh : dx, weight_gradient(ctx, shape, w, parts), none, none, none};
  }
};

// Zeros for a gradient (rows, d) in x's dtype and, where that is another, in `type`.
variable_list cleared(int64_t rows, const at::Tensor& x, at::ScalarType type) {
  const auto zeros = [&](at::ScalarType dtype) {
    return at::zeros({rows, x.size(1)}, x.options().dtype(dtype));
  };
  variable_list both{zeros(x.scalar_type())};
  if (type != x.scalar_type()) both.push_back(zeros(type));
  return both;
}

constexpr int kClearingLane = 0;
static_assert(kClearingLane < kUrgentLanes);

// Of some rows of x + h: h has the type of the result.
class CudaNormOfRows : public torch::autograd::Function<CudaNormOfRows> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& h,
                            const at::Tensor& index_in, const at::Tensor& weight, double eps, bool apart,
                            bool differentiated) {
    // The gradients of rows that are not among these, written beside the forward pass.
    Lane clearing(kClearingLane, {});
    const auto zeros = differentiated ? cleared(x.size(0), x, h.scalar_type()) : variable_list();
    clearing.leave();
    const at::Tensor x_rows = paired_rows(x), h_rows = paired_rows(h), index = index_in.contiguous(),
                     w = weight.contiguous();
    const int64_t S = index.size(0), d = x.size(1);
    const at::Tensor sum = at::empty({S, d}, x.options()), y = at::empty({S, d}, h.options());
    with_types(x, h.scalar_type(), [&](auto in_element, auto out_element) {
      using X = decltype(in_element);
      using Y = decltype(out_element);
      cuda::norm_forward<X, Y>(shape_of(sum, eps), device_data<int64_t>(index), device_rows<X>(x_rows),
                               device_rows<Y>(h_rows), device_data<float>(w), mutable_device_data<X>(sum),
                               mutable_device_data<Y>(y), cuda_stream());
    });
    clearing.join(zeros);
    ctx->save_for_backward({sum, w, index});
    ctx->saved_data["zeros"] = zeros;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["rows"] = x.size(0);
    ctx->saved_data["apart"] = apart;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &sum = saved[0], &w = saved[1], dy = paired_rows(gradients[0]), none;
    const auto shape = shape_of(sum, ctx->saved_data["eps"].toDouble());
    // Handed on, so that they serve once.
    variable_list zeros = ctx->saved_data["zeros"].toTensorVector();
    ctx->saved_data["zeros"] = variable_list();
    if (zeros.empty()) zeros = cleared(ctx->saved_data["rows"].toInt(), sum, dy.scalar_type());
    const at::Tensor dx = zeros[0], dh = zeros.size() > 1 ? zeros[1] : none;
    zeros.clear();
    const at::Tensor parts = partial_sums(shape, w);
    with_types(sum, dy.scalar_type(), [&](auto in_element, auto out_element) {
      using X = decltype(in_element);
      using Y = decltype(out_element);
      cuda::norm_backward<X, Y>(shape, device_data<int64_t>(saved[2]), device_rows<X>(sum),
                                device_data<float>(w), device_rows<Y>(dy), rows_or_none<X>(none),
                                mutable_device_data<X>(dx),
                                dh.defined() ? mutable_device_data<Y>(dh) : nullptr,
                                mutable_device_data<float>(parts), cuda_stream());
    });
    return {dx, dh.defined() ? dh : dx, none, weight_gradient(ctx, shape, w, parts), none, none, none};
  }
};

}  // namespace

Refusal rms_norm_cuda_refusal(const at::Tensor& x, at::ScalarType out) {
  const auto type = x.scalar_type();
  const Refusal refusal = first_refusal(
      {type == at::kFloat ? other_dtype("out", out, {type, at::kBFloat16}) : other_dtype("out", out, {type}),
       above("width", x.size(1), cuda::kNormWidest)});
  if (!refusal.empty() || x.size(1) % 2 == 0) return refusal;
  return "width " + std::to_string(x.size(1)) + " is odd";
}

ResidualNorm rms_norm_cuda(const at::Tensor& x, const at::Tensor& h, const at::Tensor& weight, double eps,
                           at::ScalarType out) {
  const at::Tensor w = weight.to(at::kFloat);
  const auto both = CudaNorm::apply(x, h.defined() ? std::optional(h) : std::nullopt, w, eps,
                                    static_cast<int64_t>(out), can_be_apart({w}));
  return {both[0], both[1]};
}

at::Tensor rms_norm_of_rows_cuda(const at::Tensor& x, const at::Tensor& h, const at::Tensor& rows,
                                 const at::Tensor& weight, double eps) {
  const at::Tensor w = weight.to(at::kFloat);
  return CudaNormOfRows::apply(x, h, rows, w, eps, can_be_apart({w}), wants_gradient({x, h, w}));
}

}  // namespace hax::ops
