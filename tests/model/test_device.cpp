#include "lib/model/device.h"

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/has_gpu.h"
#include "tests/support.h"

namespace hax::test {

TEST_CASE("cpu is the CPU, auto what there is, and cuda is refused where it cannot be had") {
  CHECK(choose_device(DeviceKind::cpu, "train.device") == at::kCPU);
  CHECK(choose_device(DeviceKind::automatic, "train.device").is_cuda() == has_gpu());
  const std::string message = message_of<UsageError>([] { choose_device(DeviceKind::cuda, "train.device"); });
  CHECK(message.starts_with("train.device: cuda is asked for, and ") == !has_gpu());
}

TEST_CASE("where there is a GPU the driver names it, and cuda is chosen", "[gpu]") {
  const CudaFacts facts = cuda_facts();
  CHECK_FALSE(cuda_fault(facts));
  CHECK(facts.built_with > 0);
  CHECK(facts.driver.cuda_version / 1000 >= facts.built_with / 1000);
  REQUIRE_FALSE(facts.driver.gpus.empty());
  CHECK_FALSE(facts.driver.gpus.front().name.empty());
  CHECK(facts.driver.gpus.front().gibibytes > 1.0);
  CHECK(choose_device(DeviceKind::cuda, "train.device").is_cuda());
}

}  // namespace hax::test
