// The one place that includes LibTorch, and the header that is precompiled: tensors, autograd
// functions and modes, without torch/nn, torch/optim or the serialisers.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/generated/variable_factories.h>
#include <torch/csrc/autograd/grad_mode.h>
