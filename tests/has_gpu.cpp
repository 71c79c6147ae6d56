#include "tests/has_gpu.h"

#ifdef HAX_TEST_WITH_TORCH
#include <ATen/Context.h>
#endif

namespace hax::test {

bool has_gpu() {
#ifdef HAX_TEST_WITH_TORCH
  return at::globalContext().hasCUDA();
#else
  return false;
#endif
}

}  // namespace hax::test
