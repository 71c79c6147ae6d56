#include "lib/ops/linear.h"

#include "lib/ops/lanes.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class LinearOnLanes : public torch::autograd::Function<LinearOnLanes> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight) {
    ctx->save_for_backward({x, weight});
    return at::linear(x, weight);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &dy = gradients[0];
    const at::NoGradGuard no_grad;
    Lane lane(kPatientLane, {x, dy});
    at::Tensor dweight = dy.t().mm(x);
    at::Tensor& grad = weight.mutable_grad();
    if (grad.defined())
      grad.add_(dweight);
    else
      grad = dweight;
    lane.leave();
    return {ctx->needs_input_grad(0) ? dy.mm(weight) : at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  const bool apart =
      LaneScope::open() && at::GradMode::is_enabled() && weight.requires_grad() && weight.is_leaf();
  return apart ? LinearOnLanes::apply(x, weight) : at::linear(x, weight);
}

}  // namespace hax::ops
