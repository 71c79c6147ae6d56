// CUDA that is asked for and cannot be had: each command refuses, and says what is missing. What the driver
// answers is e2e/preload/driver.cpp's, so that these tests see the same on every machine.

#include <filesystem>
#include <tuple>

#include "tests/catch.h"
#include "tests/e2e/program.h"
#include "tests/e2e/small_run.h"

namespace hax::test {
namespace {

const std::string kPreload = "LD_LIBRARY_PATH=" + shell_quoted(HAX_PRELOAD_DRIVER) + ":$LD_LIBRARY_PATH ";

// The driver supports the CUDA `version`, starts with the status `init`, and shows so many devices.
std::string with_driver(const std::string& version_init_devices) {
  return kPreload + "HAX_TEST_DRIVER=" + shell_quoted(version_init_devices) + " ";
}

bool built_with_cuda() { return !contains(run_hax({"--version"}).out, "CUDA not built in"); }

}  // namespace

TEST_CASE("each command that computes refuses cuda where there is none, with status 2", "[e2e]") {
  SmallRun w;
  REQUIRE(run_hax(w.train({"--set", "train.steps=20"})).status == 0);
  const std::string cuda_config = w.folder.path() + "/cuda.yaml", new_run = w.run + "-new";
  spill(cuda_config, "train: {device: cuda}\n");
  const std::vector<std::string> data = {"--set", "data.path=" + w.data};
  const auto with = [](std::vector<std::string> words, const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const std::pair<std::vector<std::string>, std::string> commands[] = {
      {w.train({"--set", "train.device=cuda"}, new_run), "train.device"},
      {w.train({"--config", cuda_config}, new_run), "train.device"},
      {with({"verify-resume", "--config", w.config, "--set", "train.device=cuda", "--at", "3"}, data),
       "train.device"},
      {{"eval", "--run", w.run, "--data", w.data, "--device", "cuda"}, "--device"},
      {{"table", w.run, "--data", w.data, "--device", "cuda"}, "--device"},
      {{"check", w.run, "--device", "cuda"}, "--device"},
      {{"check", "--config", w.config, "--device", "cuda"}, "--device"},
      {{"bench", "step", "--config", w.config, "--device", "cuda"}, "--device"},
      {{"bench", "step", "--config", w.config, "--set", "train.device=cuda"}, "train.device"},
      {{"bench", "scan", "--device", "cuda"}, "--device"},
  };
  for (const auto& [words, place] : commands) {
    const auto refused = run_hax(words, "CUDA_VISIBLE_DEVICES= ");
    CAPTURE(words, refused.err);
    CHECK(refused.status == 2);
    CHECK(contains(refused.err, place + ": cuda is asked for, and "));
    CHECK(contains(refused.err, ", or use cpu or auto"));
    CHECK(refused.out.empty());
  }
  CHECK_FALSE(std::filesystem::exists(new_run));
}

TEST_CASE("a driver that is too old or broken is told from devices that are not there", "[e2e]") {
  if (!built_with_cuda()) {
    const auto refused = run_hax({"bench", "step", "--device", "cuda"});
    CHECK(refused.status == 2);
    CHECK(contains(refused.err, "this build of hax has no CUDA"));
    return;
  }
  const std::tuple<std::string, std::string, std::string> cases[] = {
      {with_driver("12040 0 1"), "the NVIDIA driver supports CUDA 12.4, and hax was built with CUDA ",
       "update the driver"},
      {with_driver("99000 803 0"),
       "the NVIDIA driver does not start (error 803 CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, in the words of the "
       "driver)",
       "nvidia-smi"},
      {with_driver("99000 0 1"), "the NVIDIA driver shows Test GPU, and LibTorch cannot use it", "program"},
      {"unset CUDA_VISIBLE_DEVICES; " + with_driver("99000 100 0"), "no CUDA device is visible;",
       "nvidia-smi -L"},
      {"CUDA_VISIBLE_DEVICES=7 " + with_driver("99000 0 0"),
       "no CUDA device is visible (CUDA_VISIBLE_DEVICES is '7')", "unset it"},
  };
  for (const auto& [prefix, what, remedy] : cases) {
    const auto refused = run_hax({"bench", "step", "--device", "cuda"}, prefix);
    const auto version = run_hax({"--version"}, prefix);
    CAPTURE(prefix, refused.err, version.out);
    CHECK(refused.status == 2);
    CHECK(contains(refused.err, "--device: cuda is asked for, and " + what));
    CHECK(contains(refused.err, remedy));
    CHECK(version.status == 0);
    CHECK(contains(version.out, ": " + what.substr(0, what.find(';'))));
  }
}

TEST_CASE("auto computes on the CPU, and says once why where a driver cannot be used", "[e2e]") {
  SmallRun w;
  const std::pair<std::string, bool> cases[] = {
      {"12040 0 1", true}, {"99000 803 0", true}, {"99000 100 0", false}, {"99000 0 0", false}};
  int i = 0;
  for (const auto& [driver, broken] : cases) {
    const auto trained = run_hax(
        w.train({"--set", "train.device=auto", "--set", "train.steps=20"}, w.run + std::to_string(i++)),
        with_driver(driver));
    CAPTURE(driver, trained.err);
    CHECK(trained.status == 0);
    const std::string said = "so the CPU computes; ";
    const size_t first = trained.err.find(said);
    CHECK((first != std::string::npos) == (broken && built_with_cuda()));
    if (first != std::string::npos) CHECK(trained.err.find(said, first + 1) == std::string::npos);
    CHECK_FALSE(contains(trained.err, "[W"));  // LibTorch's own way to warn
  }
}

}  // namespace hax::test
