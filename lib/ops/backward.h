// Autograd's two entry points, for sources that do without its header.
#pragma once

#include <vector>

#include "lib/ops/torch.h"

namespace hax::ops {

// Adds the gradients of the sum of `outputs`, each weighted by its `slopes`, to .grad() of the leaves that
// they depend on, and frees the graph.
void backward(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& slopes);

// The gradient of <output, slope> in each of `inputs`. One that `output` does not depend on is an error
// (c10::Error), or with `allow_unused` undefined. Frees the graph.
std::vector<at::Tensor> gradients(const at::Tensor& output, const std::vector<at::Tensor>& inputs,
                                  const at::Tensor& slope, bool allow_unused = false);

}  // namespace hax::ops
