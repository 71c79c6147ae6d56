// The gates by tensor operations and the CPU's norm; the CUDA kernels are behind lib/ops/gate_cuda.cpp.
#include "lib/ops/gate.h"

#include <sstream>
#include <stdexcept>

#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/rms_norm.h"

namespace hax::ops {
namespace {

void check(const GateInputs& in) {
  const bool branch = in.O.defined();
  const bool fits =
      in.y.dim() == 2 && in.z.sizes() == in.y.sizes() &&
      (!branch || (in.O.sizes() == in.y.sizes() && in.E.sizes() == at::IntArrayRef({in.y.size(1)})));
  if (fits) return;
  std::ostringstream message;
  message << "gate: y is " << in.y.sizes() << ", z " << in.z.sizes();
  if (branch) message << ", O " << in.O.sizes() << ", E " << in.E.sizes();
  message << "; wanted (T, d) and for E (d)";
  throw std::invalid_argument(message.str());
}

// y + O * E
at::Tensor with_branch(const GateInputs& in, at::ScalarType type) {
  const at::Tensor y = in.y.to(type);
  return in.O.defined() ? at::addcmul(y, in.O.to(type), in.E.to(type)) : y;
}

at::Tensor gated(const GateInputs& in, at::ScalarType type) {
  return with_branch(in, type) * at::silu(in.z.to(type));
}

}  // namespace

at::Tensor gate(const GateInputs& in, Path path) {
  check(in);
#ifdef HAX_CUDA
  if (use_cuda_kernel("gate", path, in.y, [&] { return gate_cuda_refusal(in); }))
    return gate_cuda(in, {}, 0.0);
#endif
  return gated(in, compute_type(in.y)).to(in.y.scalar_type());
}

at::Tensor gated_rms_norm(const GateInputs& in, const at::Tensor& weight, double eps, Path path) {
  check(in);
#ifdef HAX_CUDA
  if (use_cuda_kernel("gated_rms_norm", path, in.y, [&] { return gate_cuda_refusal(in); }))
    return gate_cuda(in, weight, eps);
#endif
  return gated_rms_norm(with_branch(in, compute_type(in.y)), in.z, weight, eps, path).to(in.y.scalar_type());
}

}  // namespace hax::ops
