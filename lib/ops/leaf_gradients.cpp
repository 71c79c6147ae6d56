#include "lib/ops/leaf_gradients.h"

#include <algorithm>

namespace hax::ops {

bool can_be_apart(const variable_list& parameters) {
  return LaneScope::open() && at::GradMode::is_enabled() &&
         std::all_of(parameters.begin(), parameters.end(), [](const at::Tensor& p) {
           return !p.defined() || (p.requires_grad() && p.is_leaf() && p.is_contiguous());
         });
}

variable_list parameter_gradients(bool apart, const variable_list& parameters, const variable_list& inputs,
                                  const std::function<variable_list()>& f) {
  if (!apart) return f();
  const at::NoGradGuard no_grad;
  Lane lane(kPatientLane, inputs);
  const variable_list gradients = f();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].defined()) continue;
    at::Tensor& grad = parameters[i].mutable_grad();
    if (grad.defined())
      grad.add_(gradients[i]);
    else
      grad = gradients[i];
  }
  lane.leave();
  return variable_list(parameters.size());
}

}  // namespace hax::ops
