// A row-major matrix whose rows may lie in a wider one.
#pragma once

#include <cstdint>

namespace hax::cpu {

struct ConstRows {
  const float* data;
  int64_t stride;  // floats from one row to the next
  const float* row(int64_t i) const { return data + i * stride; }
};

}  // namespace hax::cpu
