// The three implementations of both norms; the CPU kernel itself is lib/ops/cpu/rms_norm.h.
#include "lib/ops/rms_norm.h"

#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"
#include "lib/ops/cpu/reduce.h"
#include "lib/ops/cpu/rms_norm.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {
namespace {

void check(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight) {
  const bool fits =
      x.dim() == 2 && weight.dim() == 1 && weight.size(0) == x.size(1) && z.sizes() == x.sizes();
  if (fits) return;
  std::ostringstream message;
  message << "rms_norm: x is " << x.sizes() << ", z " << z.sizes() << ", weight " << weight.sizes()
          << "; wanted (T, d), (T, d), (d)";
  throw std::invalid_argument(message.str());
}

// Row by row.
at::Tensor reference(const at::Tensor& u, const at::Tensor& weight, double eps) {
  std::vector<at::Tensor> y;
  for (int64_t t = 0; t < u.size(0); ++t) {
    const at::Tensor mean_square = at::dot(u[t], u[t]) / static_cast<double>(u.size(1));
    y.push_back(u[t] / (mean_square + eps).sqrt() * weight);
  }
  return y.empty() ? at::zeros_like(u) : at::stack(y);
}

at::Tensor composite(const at::Tensor& u, const at::Tensor& weight, double eps) {
  return u * at::rsqrt(u.square().mean(1, /*keepdim=*/true) + eps) * weight;
}

at::Tensor in_tensor_operations(const at::Tensor& u, const at::Tensor& weight, double eps, Path path) {
  const at::Tensor w = weight.to(u.scalar_type());
  return path == Path::reference ? reference(u, w, eps) : composite(u, w, eps);
}

// Without z, the plain norm.
class CpuNorm : public torch::autograd::Function<CpuNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& z, const at::Tensor& weight, double eps) {
    const at::Tensor x_rows = as_rows(x), z_rows = z ? as_rows(*z) : at::Tensor(), w = weight.contiguous();
    const cpu::NormInput in = kernel_input(x_rows, z_rows, w, eps);
    at::Tensor y = at::empty(x.sizes(), x.options());
    float* y_data = y.data_ptr<float>();
    at::parallel_for(0, in.blocks(), 1,
                     [&](int64_t begin, int64_t end) { cpu::norm_forward(in, y_data, begin, end); });
    ctx->save_for_backward({x_rows, z_rows, w});
    ctx->saved_data["eps"] = eps;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &z = saved[1];
    const cpu::NormInput in = kernel_input(x, z, saved[2], ctx->saved_data["eps"].toDouble());
    const at::Tensor dy = as_rows(gradients[0]);
    at::Tensor dx = at::empty({in.rows, in.d}, x.options());
    at::Tensor dz = z.defined() ? at::empty({in.rows, in.d}, x.options()) : at::Tensor();
    at::Tensor parts = at::empty({in.blocks(), in.d}, x.options()), dw = at::empty({in.d}, x.options());
    float* dz_data = z.defined() ? dz.data_ptr<float>() : nullptr;
    at::parallel_for(0, in.blocks(), 1, [&](int64_t begin, int64_t end) {
      cpu::norm_backward(in, const_rows(dy), dx.data_ptr<float>(), dz_data, parts.data_ptr<float>(), begin,
                         end);
    });
    cpu::sum_parts(parts.const_data_ptr<float>(), in.blocks(), in.d, dw.data_ptr<float>(), 0, in.d);
    return {dx, dz, dw, at::Tensor()};
  }

 private:
  static cpu::NormInput kernel_input(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                                     double eps) {
    return {const_rows(x),
            z.defined() ? const_rows(z) : cpu::ConstRows{nullptr, 0},
            weight.const_data_ptr<float>(),
            x.size(0),
            x.size(1),
            static_cast<float>(eps)};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, Path path,
                    std::optional<at::ScalarType> out) {
  check(x, x, weight);
  const auto type = out.value_or(x.scalar_type());
  if (use_cpu_kernel("rms_norm", path, x))
    return CpuNorm::apply(x, std::optional<at::Tensor>(), weight.to(at::kFloat), eps).to(type);
#ifdef HAX_CUDA
  if (use_cuda_kernel("rms_norm", path, x, [&] { return rms_norm_cuda_refusal(x, type); }))
    return rms_norm_cuda(x, at::Tensor(), weight, eps, type).norm;
#endif
  return in_tensor_operations(x.to(compute_type(x)), weight, eps, path).to(type);
}

ResidualNorm add_rms_norm(const at::Tensor& x, const at::Tensor& h, const at::Tensor& weight, double eps,
                          Path path, std::optional<at::ScalarType> out) {
  [[maybe_unused]] const auto type = out.value_or(x.scalar_type());
#ifdef HAX_CUDA
  const auto refusal = [&] {
    return first_refusal({rms_norm_cuda_refusal(x, type),
                          h.defined() ? other_dtype("h", h.scalar_type(), {type}) : Refusal()});
  };
  if (use_cuda_kernel("add_rms_norm", path, x, refusal)) {
    check(x, h.defined() ? h : x, weight);
    return rms_norm_cuda(x, h, weight, eps, type);
  }
#endif
  const at::Tensor sum = h.defined() ? x + h : x;
  return {sum, rms_norm(sum, weight, eps, path, out)};
}

at::Tensor add_rms_norm_of_rows(const at::Tensor& x, const at::Tensor& h, const at::Tensor& rows,
                                const at::Tensor& weight, double eps, Path path) {
  check(x, h, weight);
  const auto type = h.scalar_type();
#ifdef HAX_CUDA
  if (use_cuda_kernel("add_rms_norm_of_rows", path, x, [&] { return rms_norm_cuda_refusal(x, type); }))
    return rms_norm_of_rows_cuda(x, h, rows, weight, eps);
#endif
  return rms_norm((x + h).index_select(0, rows.clamp_min(0)), weight, eps, path, type);
}

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight, double eps,
                          Path path) {
  check(x, z, weight);
  if (use_cpu_kernel("gated_rms_norm", path, x))
    return CpuNorm::apply(x, std::optional<at::Tensor>(z.to(at::kFloat)), weight.to(at::kFloat), eps);
#ifdef HAX_CUDA
  if (use_cuda_kernel("gated_rms_norm", path, x, [&] { return gate_cuda_refusal({x, z, {}, {}}); }))
    return gate_cuda({x, z, {}, {}}, weight, eps);
#endif
  const auto type = compute_type(x);
  return in_tensor_operations(x.to(type) * at::silu(z.to(type)), weight, eps, path).to(x.scalar_type());
}

}  // namespace hax::ops
