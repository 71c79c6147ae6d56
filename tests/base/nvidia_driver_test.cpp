// Why a GPU cannot be used, in words, from what is known of build, driver and process.
#include "lib/base/nvidia_driver.h"

#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {
namespace {

// Of a machine on which everything works.
CudaFacts sound() {
  CudaFacts facts;
  facts.built_with = 13000;
  facts.driver = {true, 13000, "", {{"NVIDIA H200", 140.0}}};
  facts.runtime_works = true;
  return facts;
}

CudaFault fault_of(const CudaFacts& facts) {
  const auto fault = cuda_fault(facts);
  REQUIRE(fault);
  CHECK_FALSE(fault->remedy.empty());
  return *fault;
}

}  // namespace

TEST_CASE("versions of CUDA are shown as people know them") {
  CHECK(cuda_version_text(13000) == "13.0");
  CHECK(cuda_version_text(12080) == "12.8");
  CHECK(cuda_version_text(11020) == "11.2");
}

TEST_CASE(
    "a machine on which everything works has no fault, with an older driver of the same major version too") {
  CHECK_FALSE(cuda_fault(sound()));
  CudaFacts facts = sound();
  facts.built_with = 13020;
  CHECK_FALSE(cuda_fault(facts));
  facts.driver.cuda_version = 14010;
  CHECK_FALSE(cuda_fault(facts));
  facts.visible_devices = "0";
  CHECK_FALSE(cuda_fault(facts));
}

TEST_CASE("no CUDA in the build, no driver and no device are no faults of a driver") {
  CudaFacts facts = sound();
  facts.built_with = 0;
  CHECK(fault_of(facts).what == "this build of hax has no CUDA");
  CHECK(contains(fault_of(facts).remedy, "-DHAX_CUDA=ON"));
  CHECK_FALSE(fault_of(facts).broken);

  facts = sound();
  facts.driver = {};
  CHECK(fault_of(facts).what == "no NVIDIA driver is here (libcuda.so.1)");
  CHECK(contains(fault_of(facts).remedy, "CUDA 13.0"));
  CHECK_FALSE(fault_of(facts).broken);

  facts = sound();
  facts.driver.gpus.clear();
  CHECK(fault_of(facts).what == "no CUDA device is visible");
  facts.driver.cuda_version = 12040;  // of no account while there is no device
  CHECK(fault_of(facts).what == "no CUDA device is visible");
  CHECK_FALSE(fault_of(facts).broken);
  facts.visible_devices = "";
  CHECK(fault_of(facts).what == "no CUDA device is visible (CUDA_VISIBLE_DEVICES is '')");
  CHECK(contains(fault_of(facts).remedy, "unset"));
}

TEST_CASE("a driver that is too old, does not start or is of no use to LibTorch is broken") {
  CudaFacts facts = sound();
  facts.driver.cuda_version = 12080;
  CHECK(fault_of(facts).what == "the NVIDIA driver supports CUDA 12.8, and hax was built with CUDA 13.0");
  CHECK(contains(fault_of(facts).remedy, "update the driver to one for CUDA 13"));
  CHECK(fault_of(facts).broken);

  facts = sound();
  facts.driver.error = "error 999 CUDA_ERROR_UNKNOWN, unknown error";
  facts.driver.gpus.clear();
  CHECK(fault_of(facts).what ==
        "the NVIDIA driver does not start (error 999 CUDA_ERROR_UNKNOWN, unknown error)");
  CHECK(fault_of(facts).broken);

  facts = sound();
  facts.runtime_works = false;
  CHECK(fault_of(facts).what == "the NVIDIA driver shows NVIDIA H200, and LibTorch cannot use it");
  facts.runtime_words = "Error 36";
  CHECK(fault_of(facts).what.ends_with(", and LibTorch cannot use it (Error 36)"));
  CHECK(fault_of(facts).broken);
}

}  // namespace hax::test
