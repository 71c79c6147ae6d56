// LibTorch's autograd, beside the tensors of lib/ops/torch.h: for functions that bring their own gradient.
// Precompiled for lib/ops, where they all are.
#pragma once

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/ops/torch.h"
