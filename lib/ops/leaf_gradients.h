// Gradients of parameters, which nothing waits for until the end of a step. Within a LaneScope an op may make
// those of leaves on kPatientLane, beside what the backward pass goes on with, and put them straight into
// .grad(): to be read after LaneScope::join_all.
#pragma once

#include <functional>
#include <vector>

#include "lib/ops/lanes.h"

namespace hax::ops {

// torch::autograd's, for which its header is not needed.
using variable_list = std::vector<at::Tensor>;

// Whether that can be done for all of `parameters`, undefined ones aside. To be asked before Function::apply,
// inside which gradients look as if they were off.
bool can_be_apart(const variable_list& parameters);

// The gradients that `f` returns, one for each parameter. Apart: made by `f` on the lane from `inputs`, which
// are what it reads from outside, and added to the parameters; undefined ones are returned.
variable_list parameter_gradients(bool apart, const variable_list& parameters, const variable_list& inputs,
                                  const std::function<variable_list()>& f);

}  // namespace hax::ops
