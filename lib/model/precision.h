// The dtypes that train.precision means.
#pragma once

#include "lib/config/config.h"
#include "lib/ops/torch.h"

namespace hax {

// Of activations and products.
inline at::ScalarType compute_dtype(Precision precision) {
  return precision == Precision::fp32 ? at::kFloat : at::kBFloat16;
}

// Of weights, gradients and Adam's state.
inline at::ScalarType weight_dtype(Precision precision) {
  return precision == Precision::pure_bf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace hax
