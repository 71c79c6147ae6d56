#pragma once

namespace hax::test {

// Whether LibTorch sees a CUDA device; false in a program that is built without it.
bool has_gpu();

}  // namespace hax::test
