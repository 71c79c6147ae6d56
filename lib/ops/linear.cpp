#include "lib/ops/linear.h"

#include "lib/ops/autograd.h"
#include "lib/ops/leaf_gradients.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;

class LinearOnLanes : public torch::autograd::Function<LinearOnLanes> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight) {
    ctx->save_for_backward({x, weight});
    return at::linear(x, weight);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &dy = gradients[0];
    const auto dweight =
        parameter_gradients(true, {weight}, {x, dy}, [&] { return variable_list{dy.t().mm(x)}; });
    return {ctx->needs_input_grad(0) ? dy.mm(weight) : at::Tensor(), dweight[0]};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  return can_be_apart({weight}) ? LinearOnLanes::apply(x, weight) : at::linear(x, weight);
}

}  // namespace hax::ops
