// One generation at a time has an output folder, and none removes what it did not write.
#include "data_gen/output_folder.h"

#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <set>

#include "data_gen/generate.h"
#include "data_gen/text.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/dataset.h"
#include "tests/catch.h"
#include "tests/child.h"
#include "tests/support.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "/generation_in_progress";
const std::set<std::string> kWhole = {"manifest.json", "test.safetensors", "train.safetensors",
                                      "valid.safetensors"};

// Calls `between` when the evaluation splits are written, with the training split begun; stops where it says
// so.
GenerateReport generate(
    const std::string& out, int64_t seed, const std::function<bool()>& between = [] { return false; }) {
  TaskConfig task;
  task.joint_recall.n_context_min = task.joint_recall.n_key_min = 4;
  task.joint_recall.n_context_max = task.joint_recall.n_key_max = 4;
  DataConfig data;
  data.train_examples = 30;
  data.valid_examples = data.test_examples = 10;
  data.seed = seed;
  GenerateOptions options;
  options.out = out;
  options.threads = 1;
  options.program_version = "test";
  int asked = 0;
  options.should_stop = [&] { return ++asked == 3 && between(); };
  return generate_dataset(task, data, options);
}

std::set<std::string> fingerprints(const std::string& folder, int64_t seeds) {
  std::set<std::string> all;
  for (int64_t seed = 1; seed <= seeds; ++seed)
    all.insert(generate(folder + "/seed" + std::to_string(seed), seed).fingerprint);
  return all;
}

void check_whole(const std::string& out, const std::string& fingerprint) {
  CHECK(names_in(out) == kWhole);
  CHECK(Dataset::open(out, 1).manifest().fingerprint() == fingerprint);
}

}  // namespace

TEST_CASE("a second generation into a folder is refused while the first lives") {
  const TemporaryFolder folder;
  const std::string out = folder.file("d");
  const std::string holder = out + kMarker + ": process " + std::to_string(::getpid()) + " on ";
  const auto report = generate(out, 1, [&] {
    const auto before = names_in(out);
    const std::string message = message_of<UsageError>([&] { generate(out, 2); });
    CHECK(message.starts_with(holder));
    CHECK(contains(message, "name another --out"));
    CHECK(names_in(out) == before);
    CHECK(before.contains("valid.safetensors"));
    return false;
  });
  check_whole(out, report.fingerprint);
}

TEST_CASE("importing text takes the folder as generating does") {
  const TemporaryFolder folder;
  const std::string text = folder.file("text"), out = folder.file("d");
  generate(folder.file("source"), 1);
  export_text(folder.file("source"), text, 1);
  TextImport options;
  options.folder = text;
  options.out = out;
  options.threads = 1;
  options.program_version = "test";
  const auto report = generate(out, 2, [&] {
    CHECK(contains(message_of<UsageError>([&] { import_text(options); }), "is generating a dataset"));
    return false;
  });
  check_whole(out, report.fingerprint);
  options.out = folder.file("imported");
  import_text(options);
  CHECK(names_in(options.out) == kWhole);
}

TEST_CASE("what a killed generation left is cleared") {
  const TemporaryFolder folder;
  const std::string out = folder.file("d");
  const pid_t child = start_child_until_ready([&](const auto& ready) {
    generate(out, 1, [&]() -> bool {
      AtomicFile half(out + "/train.safetensors");  // a kill leaves its temporary
      half.write("half");
      ready();
      while (true) ::pause();
    });
    return 1;
  });
  const std::string message = message_of<UsageError>([&] { generate(out, 2); });
  CHECK(contains(message, "process " + std::to_string(child) + " on "));
  CHECK(names_in(out).size() == 4);
  ::kill(child, SIGKILL);
  REQUIRE(wait_for(child) == 128 + SIGKILL);
  CHECK(names_in(out).size() == 4);
  check_whole(out, generate(out, 2).fingerprint);
}

TEST_CASE("a generation whose folder is another's by now writes and removes nothing there") {
  const TemporaryFolder folder;
  const std::string out = folder.file("d");
  const bool moved = GENERATE(false, true), stopped = GENERATE(false, true);
  CAPTURE(moved, stopped);
  std::string fingerprint;
  const auto first = [&] {
    generate(out, 1, [&] {
      if (moved) {
        fs::rename(out, folder.file("elsewhere"));
      } else {
        fs::remove_all(out);
      }
      fingerprint = generate(out, 2).fingerprint;
      return stopped;
    });
  };
  if (stopped) {
    first();
  } else {
    CHECK(contains(message_of<RuntimeError>(first), "--out " + out + ": the folder, or "));
  }
  check_whole(out, fingerprint);
}

TEST_CASE("a generation whose marker is gone leaves the folder as it is") {
  const TemporaryFolder folder;
  const std::string out = folder.file("d");
  generate(out, 1, [&] {
    fs::remove(out + kMarker);
    return true;
  });
  CHECK(names_in(out) == std::set<std::string>{"test.safetensors", "valid.safetensors"});
}

TEST_CASE("a failed generation removes the names it wrote and no others") {
  const TemporaryFolder folder;
  const std::string out = folder.file("d");
  generate(out, 1, [&] {
    spill(out + "/train.safetensors", "mine");
    spill(out + "/manifest.json", "mine");
    return true;
  });
  CHECK(names_in(out) == std::set<std::string>{"manifest.json", "train.safetensors"});
}

TEST_CASE("a marker beside a whole dataset disturbs no reader, and is no reason to clear it") {
  const TemporaryFolder folder;
  const std::string out = folder.file("d");
  const std::string fingerprint = generate(out, 1).fingerprint;
  spill(out + kMarker, "");
  CHECK(Dataset::open(out, 1).manifest().fingerprint() == fingerprint);
  CHECK(contains(message_of<UsageError>([&] { generate(out, 2); }), "already holds a dataset"));
  CHECK(Dataset::open(out, 1).manifest().fingerprint() == fingerprint);
}

// Of the processes that race for a folder some stop half-way; each ends whole, stopped or refused.
TEST_CASE("of many generations into one folder one is whole, and nothing of the others is in it") {
  constexpr int kContenders = 4, kRounds = 8, kMade = 0, kRefused = 10, kTurns = 6;
  const TemporaryFolder folder;
  const std::set<std::string> whole = fingerprints(folder.path(), kContenders);
  for (int round = 0; round < kRounds; ++round) {
    const std::string out = folder.file("d" + std::to_string(round));
    CAPTURE(round);
    if (round % 2 == 1) fs::create_directory(out);
    std::vector<pid_t> children;
    for (int i = 0; i < kContenders; ++i) {
      children.push_back(start_child([&] {
        for (int turn = 1;;) {
          try {
            if (!generate(out, i + 1, [&] { return turn < kTurns; }).stopped) return kMade;
            ++turn;
          } catch (const UsageError& e) {
            if (contains(e.what(), "already holds a dataset")) return kRefused;
            if (!contains(e.what(), "is generating a dataset")) throw;
          }
        }
      }));
    }
    int made = 0;
    for (const pid_t child : children) {
      const int status = wait_for(child);
      CHECK((status == kMade || status == kRefused));
      if (status == kMade) ++made;
    }
    CHECK(made == 1);
    CHECK(names_in(out) == kWhole);
    CHECK(whole.contains(Dataset::open(out, 1).manifest().fingerprint()));
  }
}

}  // namespace hax::test
