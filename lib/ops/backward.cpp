#include "lib/ops/backward.h"

#include "lib/ops/autograd.h"

namespace hax::ops {

void backward(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& slopes) {
  torch::autograd::backward(outputs, slopes);
}

std::vector<at::Tensor> gradients(const at::Tensor& output, const std::vector<at::Tensor>& inputs,
                                  const at::Tensor& slope, bool allow_unused) {
  return torch::autograd::grad({output}, inputs, {slope}, /*retain_graph=*/c10::nullopt,
                               /*create_graph=*/false, allow_unused);
}

}  // namespace hax::ops
