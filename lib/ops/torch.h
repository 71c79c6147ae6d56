// The one place that includes LibTorch, and the header that is precompiled: tensors, operators, modes and
// parallel loops, without torch/nn, torch/optim, the serialisers and autograd's functions, which have a
// header of their own (lib/ops/autograd.h): they would take each source another second or more.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
