// Lanes where there is no CUDA: nothing. With it: lanes_cuda.cpp.
#include "lib/ops/lanes.h"

#ifndef HAX_CUDA
namespace hax::ops {

struct Lane::Streams {};
Lane::Lane(int, const std::vector<at::Tensor>&) {}
Lane::~Lane() = default;
void Lane::leave() {}
void Lane::join(const std::vector<at::Tensor>&) {}
LaneScope::LaneScope(at::Device) {}
LaneScope::~LaneScope() = default;
bool LaneScope::open() { return false; }
void LaneScope::join_all() {}

}  // namespace hax::ops
#endif
