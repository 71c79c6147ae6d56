// Checkpoints that are damaged, disks that are full, folders that go away.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/train/kept_checkpoints.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

void flip_a_bit(const std::string& path) {
  std::string bytes = slurp(path);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  spill(path, bytes);
}

std::vector<int64_t> kept_steps(const std::string& run) {
  std::vector<int64_t> steps;
  for (const auto& kept : kept_checkpoints(RunFolder::open(run))) steps.push_back(kept.step);
  return steps;
}

// Files may grow to `bytes` while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("as many training checkpoints stay as the config says, whatever interrupts the run") {
  const TemporaryFolder folder;
  for (const int64_t keep : {1, 2, 4}) {
    CAPTURE(keep);
    Config config = toy_config();
    config.train.checkpoint_every = 4;
    config.train.keep_last = keep;
    const std::string whole = folder.path() + "/whole" + std::to_string(keep), path = whole + "-pieces";
    run_toy(whole, config);
    const std::vector<int64_t> all = {28, 24, 20};
    CHECK(kept_steps(whole) == std::vector<int64_t>(all.begin(), all.begin() + keep - 1));
    for (const int64_t at : {3, 9, 17, 18, 24}) run_toy(path, config, stop_at(at));
    run_toy(path, config);
    CHECK(differences(whole, path) == "");
  }
}

TEST_CASE("a damaged last checkpoint is set aside, and the run goes on from the one before it") {
  for (const bool missing : {false, true}) {
    const TemporaryFolder folder;
    const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
    run_toy(whole, toy_config());
    run_toy(path, toy_config(), stop_at(23));
    REQUIRE(kept_steps(path) == std::vector<int64_t>{21, 14});
    const std::string last = path + "/checkpoints/last.safetensors";
    if (missing)
      fs::remove(last);
    else
      flip_a_bit(last);
    CHECK(run_toy(path, toy_config(), stop_at(0)).result.step == 21);
    CHECK(fs::exists(last + ".corrupt") == !missing);
    CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
    CHECK(differences(whole, path) == "");
  }
}

TEST_CASE("every checkpoint damaged: the run stops, says so, and leaves them where they are") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", last = path + "/checkpoints/last.safetensors";
  run_toy(path, toy_config(), stop_at(16));
  spill(last, slurp(last).substr(0, 1000));
  for (const char* name : {"/checkpoints/step-14.safetensors", "/checkpoints/step-7.safetensors"})
    flip_a_bit(path + name);
  for (int i = 0; i < 2; ++i) {
    const std::string message = message_of<DataError>([&] { run_toy(path, toy_config()); });
    CHECK(contains(message, "last.safetensors"));
    CHECK(contains(message, "step-14.safetensors"));
    CHECK(contains(message, "remove " + path + "/checkpoints"));
  }
  CHECK(fs::exists(last));
  fs::remove_all(path + "/checkpoints");
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
}

TEST_CASE("what cannot be saved is found before the first step") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  {
    const FileSizeLimit limit(20000);  // a checkpoint takes more
    const std::string message = message_of<RuntimeError>([&] { run_toy(path, toy_config()); });
    CHECK(contains(message, path + "/checkpoints"));
    CHECK(contains(message, "train.keep_last"));
  }
  CHECK_FALSE(fs::exists(path + "/metrics.jsonl"));
  CHECK(names_in(path + "/checkpoints").empty());
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
}

TEST_CASE("room that is lost on the way stops the run with its last good state") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  run_toy(whole, toy_config());
  std::unique_ptr<FileSizeLimit> limit;
  const auto fill = [&](int64_t step) {
    if (step == 16 && !limit) limit = std::make_unique<FileSizeLimit>(20000);
    return false;
  };
  const std::string message = message_of<RuntimeError>([&] { run_toy(path, toy_config(), fill); });
  limit.reset();
  CHECK(contains(message, "cannot write " + path + "/checkpoints/"));
  CHECK(contains(message, "the state of step 14 is saved"));
  CHECK(read_checkpoint_info(path + "/checkpoints/last.safetensors").step == 14);
  for (const auto& name : names_in(path + "/checkpoints")) CHECK_FALSE(name.ends_with(".tmp"));
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
  CHECK(differences(whole, path) == "");
}

TEST_CASE("room that is lost for a while is waited for where the config says so, metrics included") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  Config config = toy_config();
  config.train.on_save_error = OnSaveError::carry_on;
  run_toy(whole, config);
  std::unique_ptr<FileSizeLimit> limit;
  const auto fill = [&](int64_t step) {
    if (step == 10 && !limit) limit = std::make_unique<FileSizeLimit>(10);  // metrics cannot grow either
    if (step == 23) limit.reset();
    return false;
  };
  CHECK(run_toy(path, config, fill).end == TrainEnd::finished);
  CHECK(slurp(whole + "/metrics.jsonl") == slurp(path + "/metrics.jsonl"));
  const std::string last = "/checkpoints/last.safetensors";
  CHECK(at::equal(read_checkpoint(whole + last, at::kCPU).model->parameters().flat(),
                  read_checkpoint(path + last, at::kCPU).model->parameters().flat()));

  // Never at the end: what is not saved then is lost.
  const std::string lost = folder.path() + "/lost";
  const auto fill_for_good = [&](int64_t step) {
    if (step == 10 && !limit) limit = std::make_unique<FileSizeLimit>(10);
    return false;
  };
  const std::string message = message_of<RuntimeError>([&] { run_toy(lost, config, fill_for_good); });
  limit.reset();
  CHECK(contains(message, "the run stops at step 30, the state of step 7 is saved"));
  CHECK_FALSE(fs::exists(lost + "/result.json"));
  CHECK(run_toy(lost, config).end == TrainEnd::finished);
  CHECK(differences(whole, lost) == "");
}

TEST_CASE("a folder that goes away stops the run, or is passed over until the end") {
  for (const OnSaveError policy : {OnSaveError::stop, OnSaveError::carry_on}) {
    const TemporaryFolder folder;
    const std::string path = folder.path() + "/run";
    Config config = toy_config();
    config.train.on_save_error = policy;
    int64_t last = 0;
    const auto take_away = [&](int64_t step) {
      last = step;
      if (step == 10 && fs::exists(path)) fs::rename(path, path + "-gone");
      return false;
    };
    const std::string message = message_of<RuntimeError>([&] { run_toy(path, config, take_away); });
    CHECK(contains(message, path));
    CHECK(contains(message,
                   "the state of step 7 was saved, and " + path + "/checkpoints/last.safetensors is gone"));
    CHECK(last == (policy == OnSaveError::stop ? 10 : 30));
    CHECK_FALSE(fs::exists(path));
    fs::rename(path + "-gone", path);
    CHECK(run_toy(path, config).end == TrainEnd::finished);
  }
}

TEST_CASE("a folder without the right to write is found at once") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  run_toy(path, toy_config(), stop_at(5));
  const auto expect_refusal = [&] {
    const std::string message = message_of<RuntimeError>([&] { run_toy(path, toy_config()); });
    return contains(message, path) && contains(message, "ermission");
  };
  fs::permissions(path + "/checkpoints", fs::perms::owner_read | fs::perms::owner_exec);
  bool refused = false;
  if (::geteuid() == 0) {
    // Modes bind everybody but root: a child gives its rights up.
    fs::permissions(folder.path(), fs::perms::all);
    fs::permissions(path, fs::perms::all);
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.is_regular_file()) fs::permissions(entry.path(), fs::perms::all);
    }
    fs::permissions(
        path + "/checkpoints",
        fs::perms::all & ~(fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write));
    for (const auto& entry : fs::directory_iterator(path + "/checkpoints"))
      fs::permissions(entry.path(), fs::perms::all);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(::setuid(65534) == 0 && expect_refusal() ? 0 : 1);
    int raw = 0;
    REQUIRE(::waitpid(child, &raw, 0) == child);
    refused = WIFEXITED(raw) && WEXITSTATUS(raw) == 0;
  } else {
    refused = expect_refusal();
  }
  CHECK(refused);
  fs::permissions(path + "/checkpoints", fs::perms::owner_all);
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
}

TEST_CASE("room is asked for and given back") {
  const TemporaryFolder folder;
  CHECK_NOTHROW(require_room(folder.path(), 1 << 20, 3));
  CHECK(names_in(folder.path()).empty());
  CHECK_THROWS_AS(require_room(folder.path() + "/none", 1), RuntimeError);
  CHECK_THROWS_AS(require_room(folder.path(), int64_t{1} << 60), RuntimeError);
  const FileSizeLimit limit(4096);
  CHECK_NOTHROW(require_room(folder.path(), 4096, 2));
  CHECK_THROWS_AS(require_room(folder.path(), 4097), RuntimeError);
  CHECK(names_in(folder.path()).empty());
}

}  // namespace hax::test
