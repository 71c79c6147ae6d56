// The best checkpoint that is missing, damaged or another run's: told of, never replaced in silence.
#include <filesystem>

#include "lib/base/error.h"
#include "lib/train/best_checkpoint.h"
#include "lib/train/collect_runs.h"
#include "tests/catch.h"
#include "tests/stderr.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

std::string best_of(const std::string& run) { return run + "/checkpoints/best.safetensors"; }
std::string last_of(const std::string& run) { return run + "/checkpoints/last.safetensors"; }

// Says of a run that has ended that its best validation was at `step`.
void set_best_step(const std::string& path, int64_t step) {
  const RunFolder run = RunFolder::open(path);
  RunResult result = run.result().value();
  result.best_step = step;
  run.write_result(result);
}

void check_ends_with_a_best(const std::string& path) {
  const RunFolder run = RunFolder::open(path);
  REQUIRE(run.result().has_value());
  CHECK(run.result()->best_accuracy >= 0.0);
  REQUIRE(fs::exists(run.best_checkpoint()));
  const CheckpointInfo best = read_checkpoint_info(run.best_checkpoint());
  CHECK(best.step == run.result()->best_step);
  CHECK(best.best_accuracy == run.result()->best_accuracy);
  CHECK(checkpoint_of(run) == run.best_checkpoint());
}

}  // namespace

TEST_CASE("no other weights stand for a run whose best checkpoint is missing or of another step") {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  run_toy(path, toy_config());
  const RunFolder run = RunFolder::open(path);
  const auto refusal = [&] { return message_of<DataError>([&] { checkpoint_of(run); }); };
  CHECK(checkpoint_of(run) == best_of(path));

  set_best_step(path, 7);
  CHECK(contains(refusal(), best_of(path) + ": holds the state of step"));
  CHECK(contains(refusal(), "best validation was at step 7"));
  fs::remove(best_of(path));
  CHECK(contains(refusal(), best_of(path) + ": is missing"));
  CHECK(contains(refusal(), "at step 7"));
  CHECK(contains(refusal(), "remove " + path + "/result.json"));
  CHECK(any_checkpoint_of(run) == last_of(path));

  // The weights of the best validation, by another name.
  set_best_step(path, 30);
  CHECK(checkpoint_of(run) == last_of(path));
}

TEST_CASE("a run that was never validated is evaluated at its last checkpoint, one that was is not") {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  run_toy(path, toy_config(), stop_at(8));
  CHECK(checkpoint_of(RunFolder::open(path)) == last_of(path));
  run_toy(path, toy_config(), stop_at(16));
  fs::remove(best_of(path));
  const std::string said = message_of<DataError>([&] { checkpoint_of(RunFolder::open(path)); });
  CHECK(contains(said, best_of(path) + ": is missing"));
  CHECK(contains(said, "let `hax train --out " + path + "` go on"));
}

TEST_CASE("a run that goes on without its best checkpoint says so, and writes a new one") {
  const TemporaryFolder folder;
  const std::string other = folder.file("other");
  Config another = toy_config();
  another.train.seed += 1;
  run_toy(other, another, stop_at(16));
  for (const std::string fault : {"missing", "cut short", "a bit", "another run's", "another step's"}) {
    CAPTURE(fault);
    const std::string path = folder.file(fault), best = best_of(path);
    run_toy(path, toy_config(), stop_at(23));
    std::string bytes = slurp(best);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    if (fault == "missing") fs::remove(best);
    if (fault == "cut short") spill(best, slurp(best).substr(0, 1000));
    if (fault == "a bit") spill(best, bytes);
    if (fault == "another run's") spill(best, slurp(best_of(other)));
    if (fault == "another step's") spill(best, slurp(path + "/checkpoints/step-14.safetensors"));
    const std::string said = stderr_of([&] { run_toy(path, toy_config()); });
    CHECK(contains(said, best));
    CHECK(contains(said, "the next validation writes a new one"));
    CHECK(contains(said, best + ".corrupt") == (fault != "missing"));
    CHECK(fs::exists(best + ".corrupt") == (fault != "missing"));
    check_ends_with_a_best(path);
  }
}

TEST_CASE("a best checkpoint is written again where all steps are done, or the state is that of the best") {
  const TemporaryFolder folder;
  const std::string whole = folder.file("whole"), path = folder.file("run");
  run_toy(whole, toy_config());
  run_toy(path, toy_config());
  fs::remove(path + "/result.json");
  fs::remove(best_of(path));
  CHECK(run_toy(path, toy_config()).result.best_step == 30);
  check_ends_with_a_best(path);
  CHECK(slurp(path + "/metrics.jsonl") == slurp(whole + "/metrics.jsonl"));
}

TEST_CASE("a best checkpoint later than the state that a run goes on from is no fault") {
  const TemporaryFolder folder;
  const std::string whole = folder.file("whole"), path = folder.file("run");
  run_toy(whole, toy_config());
  run_toy(path, toy_config(), stop_at(23));
  fs::remove(last_of(path));
  fs::remove(path + "/checkpoints/step-21.safetensors");
  REQUIRE(read_checkpoint_info(best_of(path)).step > 0);
  const std::string said = stderr_of([&] { run_toy(path, toy_config()); });
  CHECK_FALSE(contains(said, "best.safetensors"));
  CHECK(slurp(best_of(path)) == slurp(best_of(whole)));
}

TEST_CASE("an empty config is none of a run's") {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  RunFolder::create_or_resume(path, toy_config());
  spill(path + "/config.yaml", "");
  const std::string said = message_of<DataError>([&] { RunFolder::open(path); });
  CHECK(contains(said, "the run's own config is damaged"));
  CHECK(contains(said, path + "/config.yaml: is empty"));
}

TEST_CASE("a folder that cannot be looked into is passed over, and named") {
  const TemporaryFolder folder;
  const std::string path = folder.file("run"), loop = folder.file("sub");
  run_toy(path, toy_config(), stop_at(3));
  fs::create_directory(loop);
  fs::create_symlink("config.yaml", loop + "/config.yaml");
  std::vector<std::string> passed_over, found;
  const std::string said = stderr_of([&] { found = find_runs({folder.path()}, &passed_over); });
  CHECK(found == std::vector<std::string>{path});
  CHECK(passed_over == std::vector<std::string>{loop});
  CHECK(contains(said, loop + "/config.yaml: cannot be used"));
}

}  // namespace hax::test
