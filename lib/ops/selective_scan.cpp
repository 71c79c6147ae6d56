// The three implementations of the selective scan; the CPU kernel itself is lib/ops/cpu/selective_scan.h.
#include "lib/ops/selective_scan.h"

#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"
#include "lib/ops/cpu/selective_scan.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/linear_scan.h"

namespace hax::ops {
namespace {

void check(const SelectiveScanInputs& in, int64_t T) {
  const auto fail = [](const char* name, const at::Tensor& tensor, const char* wanted) {
    std::ostringstream message;
    message << "selective_scan: " << name << " is " << tensor.sizes() << ", wanted " << wanted;
    throw std::invalid_argument(message.str());
  };
  if (in.u.dim() != 2 || in.u.size(0) != T) fail("u", in.u, "(T, d_inner)");
  if (in.B.dim() != 2 || in.B.size(0) != T) fail("B", in.B, "(T, N)");
  const int64_t channels = in.u.size(1), N = in.B.size(1);
  if (in.C.sizes() != in.B.sizes()) fail("C", in.C, "the shape of B");
  if (in.delta.sizes() != in.u.sizes()) fail("delta", in.delta, "the shape of u");
  if (in.A.sizes() != at::IntArrayRef({channels, N})) fail("A", in.A, "(d_inner, N)");
  for (const auto* per_channel : {&in.D, &in.dt_bias}) {
    if (per_channel->sizes() != at::IntArrayRef({channels})) fail("D or dt_bias", *per_channel, "(d_inner)");
  }
}

SelectiveScanInputs converted(const SelectiveScanInputs& in, at::ScalarType type) {
  return {in.u.to(type), in.delta.to(type), in.A.to(type),      in.B.to(type),
          in.C.to(type), in.D.to(type),     in.dt_bias.to(type)};
}

// The recurrence as it is written, for token t; dt after softplus.
struct Step {
  at::Tensor h, y;  // (d_inner, N), (d_inner)
};
Step advance(const SelectiveScanInputs& in, const at::Tensor& dt, int64_t t, const at::Tensor& h) {
  const at::Tensor step = dt[t].unsqueeze(1);  // (d_inner, 1)
  const at::Tensor next = (step * in.A).exp() * h + step * in.B[t] * in.u[t].unsqueeze(1);
  return {next, (next * in.C[t]).sum(1) + in.D * in.u[t]};
}

// Token by token.
at::Tensor reference(const SelectiveScanInputs& given, const PackedLayout& layout) {
  const SelectiveScanInputs in = converted(given, compute_type(given.u));
  const at::Tensor dt = at::softplus(in.delta + in.dt_bias);
  std::vector<at::Tensor> y;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    at::Tensor h = at::zeros_like(in.A);
    for (int64_t t = layout.offsets[b]; t < layout.offsets[b + 1]; ++t) {
      const Step step = advance(in, dt, t, h);
      h = step.h;
      y.push_back(step.y);
    }
  }
  return at::stack(y).to(given.u.scalar_type());
}

struct ScanResult {
  at::Tensor y;       // (T, d_inner)
  at::Tensor states;  // (T, d_inner, N): the state after every token
};

// One scan over all tokens, in which every sequence's first token forgets what came before.
ScanResult composite(const SelectiveScanInputs& given, const PackedLayout& layout) {
  const SelectiveScanInputs in = converted(given, compute_type(given.u));
  const at::Tensor dt = at::softplus(in.delta + in.dt_bias);
  const at::Tensor first = (layout.position == 0).view({-1, 1, 1});
  const at::Tensor decay = (dt.unsqueeze(2) * in.A).exp().masked_fill(first, 0);
  const at::Tensor h = linear_scan(decay, (dt * in.u).unsqueeze(2) * in.B.unsqueeze(1));
  const at::Tensor y = at::matmul(h, in.C.unsqueeze(2)).squeeze(2) + in.D * in.u;
  return {y.to(given.u.scalar_type()), h};
}

// selective_scan by the CPU kernel. Rows of u, delta, B and C may be slices of wider rows.
class CpuSelectiveScan : public torch::autograd::Function<CpuSelectiveScan> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& u,
                            const at::Tensor& delta, const at::Tensor& A, const at::Tensor& B,
                            const at::Tensor& C, const at::Tensor& D, const at::Tensor& dt_bias,
                            const PackedLayout& layout, bool keep) {
    const at::Tensor u_rows = as_rows(u), delta_rows = as_rows(delta), B_rows = as_rows(B),
                     C_rows = as_rows(C), decay_rates = A.contiguous(), per_channel = at::stack({D, dt_bias});
    const cpu::SelectiveScanPlan plan(layout.offsets.data(), layout.batch(), u.size(1), B.size(1));
    const cpu::SelectiveScanInput in =
        kernel_input(u_rows, delta_rows, B_rows, C_rows, decay_rates, per_channel);
    at::Tensor y = at::empty(u.sizes(), u.options());
    at::Tensor states = at::empty({keep ? plan.state_floats() : 0}, u.options());
    float* y_data = y.data_ptr<float>();
    float* state_data = keep ? states.data_ptr<float>() : nullptr;
    at::parallel_for(0, plan.tasks(), 1, [&](int64_t begin, int64_t end) {
      cpu::selective_scan_forward(plan, in, y_data, state_data, begin, end);
    });
    if (keep) {
      ctx->save_for_backward({u_rows, delta_rows, B_rows, C_rows, decay_rates, per_channel, states});
      ctx->saved_data["offsets"] = layout.offsets;
    }
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &u = saved[0], &states = saved[6];
    const auto offsets = ctx->saved_data["offsets"].toIntVector();
    const auto batch = static_cast<int64_t>(offsets.size()) - 1;
    const int64_t T = u.size(0), channels = u.size(1), N = saved[2].size(1);
    const cpu::SelectiveScanPlan plan(offsets.data(), batch, channels, N);
    const cpu::SelectiveScanInput in = kernel_input(u, saved[1], saved[2], saved[3], saved[4], saved[5]);
    const at::Tensor dy = as_rows(gradients[0]);
    at::Tensor du = at::empty({T, channels}, u.options()), ddelta = at::empty_like(du);
    const at::Tensor dB = at::empty({plan.tasks_per_sequence(), T, N}, u.options()), dC = at::empty_like(dB);
    const at::Tensor dA = at::empty({batch, channels, N}, u.options());
    const at::Tensor dD = at::empty({batch, channels}, u.options()), ddt_bias = at::empty_like(dD);
    const cpu::SelectiveScanGradient out{
        du.data_ptr<float>(), ddelta.data_ptr<float>(), dB.data_ptr<float>(),      dC.data_ptr<float>(),
        dA.data_ptr<float>(), dD.data_ptr<float>(),     ddt_bias.data_ptr<float>()};
    at::parallel_for(0, plan.tasks(), 1, [&](int64_t begin, int64_t end) {
      cpu::selective_scan_backward(plan, in, states.const_data_ptr<float>(), const_rows(dy), out, begin, end);
    });
    return {du,
            ddelta,
            sum_of_parts(dA),
            sum_of_parts(dB),
            sum_of_parts(dC),
            sum_of_parts(dD),
            sum_of_parts(ddt_bias),
            at::Tensor(),
            at::Tensor()};
  }

 private:
  static cpu::SelectiveScanInput kernel_input(const at::Tensor& u, const at::Tensor& delta,
                                              const at::Tensor& B, const at::Tensor& C, const at::Tensor& A,
                                              const at::Tensor& per_channel) {
    const float* D = per_channel.const_data_ptr<float>();
    return {const_rows(u),          const_rows(delta),         const_rows(B),
            const_rows(C),          A.const_data_ptr<float>(), D,
            D + per_channel.size(1)};
  }
};

}  // namespace

at::Tensor selective_scan(const SelectiveScanInputs& in, const PackedLayout& layout, Path path) {
  check(in, layout.total());
  if (path == Path::reference) return reference(in, layout);
#ifdef HAX_CUDA
  if (use_cuda_kernel("selective_scan", path, in.u, [&] { return selective_scan_cuda_refusal(in.B); }))
    return selective_scan_cuda(in, layout);
#endif
  if (!use_cpu_kernel("selective_scan", path, in.u)) return composite(in, layout).y;
  const SelectiveScanInputs f = converted(in, at::kFloat);
  return CpuSelectiveScan::apply(f.u, f.delta, f.A, f.B, f.C, f.D, f.dt_bias, layout,
                                 wants_gradient({f.u, f.delta, f.A, f.B, f.C, f.D, f.dt_bias}));
}

at::Tensor selective_scan_step(const SelectiveScanInputs& given, at::Tensor& state) {
  const at::NoGradGuard no_grad;
  check(given, 1);
  if (state.sizes() != given.A.sizes()) {
    std::ostringstream message;
    message << "selective_scan_step: state is " << state.sizes() << ", wanted (d_inner, N)";
    throw std::invalid_argument(message.str());
  }
  const SelectiveScanInputs in = converted(given, state.scalar_type());
  const Step step = advance(in, at::softplus(in.delta + in.dt_bias), 0, state);
  state = step.h;
  return step.y.unsqueeze(0).to(given.u.scalar_type());
}

at::Tensor selective_scan_final_state(const SelectiveScanInputs& in, const PackedLayout& layout) {
  check(in, layout.total());
  at::NoGradGuard no_grad;
  return composite(in, layout).states.index_select(0, layout.cu_seqlens.slice(0, 1) - 1);
}

}  // namespace hax::ops
