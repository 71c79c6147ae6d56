// A layout kept for the backward pass.
#pragma once

#include <utility>

#include "lib/ops/autograd.h"
#include "lib/ops/layout.h"

namespace hax::ops {

struct SavedLayout : torch::CustomClassHolder {
  explicit SavedLayout(PackedLayout layout) : layout(std::move(layout)) {}
  PackedLayout layout;
};
inline void save_layout(torch::autograd::AutogradContext* ctx, const PackedLayout& layout) {
  ctx->saved_data["layout"] = c10::IValue::make_capsule(c10::make_intrusive<SavedLayout>(layout));
}
inline PackedLayout saved_layout(torch::autograd::AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<SavedLayout>(ctx->saved_data["layout"].toCapsule())->layout;
}

}  // namespace hax::ops
