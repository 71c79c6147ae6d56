// Runs that are damaged, missing or out of reach, and numbers that would stand under a wrong heading.
#include <unistd.h>

#include "tests/e2e/small_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

// Weights that stay as they are, so that the first validation, at step 4, is the best.
const std::vector<std::string> kStill = {"--set",          "train.steps=6", "--set",
                                         "train.lr=1e-12", "--set",         "train.validate_every=4"};

std::vector<std::string> still(const std::string& more) {
  std::vector<std::string> words = kStill;
  words.insert(words.end(), {"--set", more});
  return words;
}

}  // namespace

TEST_CASE("a run whose best checkpoint is gone has no number on data until it is validated again", "[e2e]") {
  SmallRun w;
  const std::string tree = w.folder.file("tree"), good = tree + "/good", bad = tree + "/bad";
  const std::string best = bad + "/checkpoints/best.safetensors";
  fs::create_directory(tree);
  REQUIRE(run_hax(w.train(still("train.seed=1"), good)).status == 0);
  REQUIRE(run_hax(w.train(still("train.seed=2"), bad)).status == 0);
  REQUIRE(run_hax({"table", tree, "--data", w.data}).status == 0);
  REQUIRE(fs::remove(best));

  for (const auto& arguments :
       {std::vector<std::string>{"table", bad, "--data", w.data}, {"eval", "--run", bad, "--data", w.data}}) {
    const auto refused = run_hax(arguments);
    CAPTURE(arguments, refused.err);
    CHECK(refused.status == 3);
    CHECK(refused.out.empty());
    CHECK(contains(refused.err, best + ": is missing, and the run's best validation was at step 4"));
  }
  // Its best validation accuracy is still its own.
  CHECK(run_hax({"table", bad, "--json"}).status == 0);
  const auto table = run_hax({"table", tree, "--data", w.data});
  INFO(table.err);
  CHECK(table.status == 0);
  CHECK(contains(table.err, bad + " is left out of the table"));
  CHECK(contains(table.out, "Left out, since they could not be read: " + bad));
  CHECK(contains(table.out, "Runs: 1 (1 finished)"));
  CHECK(contains(run_hax({"train", "--out", bad}).err, best + ": is missing"));

  fs::remove(bad + "/result.json");
  const auto again = run_hax({"train", "--out", bad});
  INFO(again.err);
  CHECK(again.status == 0);
  CHECK(contains(again.err, best + ": is missing (the run's best was of step 4)"));
  CHECK(run_hax({"table", bad, "--data", w.data}).status == 0);
}

TEST_CASE("a model of a larger vocabulary is evaluated where the ids mean the same, and the table says so",
          "[e2e]") {
  SmallRun w;
  const std::string large = w.folder.file("large");
  const std::vector<std::string> more = {"--set", "task.joint_recall.vocab_size=200", "--set", "data.seed=5"};
  std::vector<std::string> generate = {"gen-data", "--config", w.config, "--out", large};
  generate.insert(generate.end(), more.begin(), more.end());
  REQUIRE(run_hax(generate).status == 0);
  std::vector<std::string> train = w.train(kStill);
  train.insert(train.end(), more.begin(), more.end());
  train.insert(train.end(), {"--set", "data.path=" + large});
  const auto trained = run_hax(train);
  INFO(trained.err);
  REQUIRE(trained.status == 0);
  const std::string note = "was trained with a vocabulary of 200 tokens; these data have 100 of them";
  for (const auto& arguments : {std::vector<std::string>{"table", w.run}, {"eval", "--run", w.run}}) {
    for (const bool same : {false, true}) {
      std::vector<std::string> all = arguments;
      all.insert(all.end(), {"--data", same ? large : w.data});
      const auto result = run_hax(all);
      CAPTURE(all, result.err, result.out);
      CHECK(result.status == 0);
      CHECK(contains(result.out, note) == !same);
    }
  }
}

TEST_CASE("training goes on nowhere: no run there, or one without a config", "[e2e]") {
  SmallRun w;
  const std::string nowhere = w.folder.file("nowhere"), empty = w.folder.file("empty");
  fs::create_directory(empty);
  for (const auto& path : {nowhere, empty}) {
    const auto result = run_hax({"train", "--out", path});
    CHECK(result.status == 2);
    CHECK(contains(result.err, "--out " + path + ": there is no run to go on with"));
    CHECK(contains(result.err, "--config FILE"));
    CHECK_FALSE(contains(result.err, "data.path"));
  }
  CHECK_FALSE(fs::exists(nowhere));
  fs::create_directory(empty + "/checkpoints");
  const auto lost = run_hax({"train", "--out", empty});
  CHECK(lost.status == 3);
  CHECK(contains(lost.err, "config.yaml is missing"));
  spill(empty + "/config.yaml", "");
  for (const auto& more : {std::vector<std::string>{}, {"--set", "train.threads=2"}}) {
    std::vector<std::string> words = {"train", "--out", empty};
    words.insert(words.end(), more.begin(), more.end());
    const auto damaged = run_hax(words);
    CHECK(damaged.status == 3);
    CHECK(contains(damaged.err, "the run's own config is damaged"));
    CHECK(contains(damaged.err, empty + "/config.yaml: is empty"));
  }
}

TEST_CASE("paths that cannot be looked at are named with the reason, and end no table of others", "[e2e]") {
  SmallRun w;
  const std::string tree = w.folder.file("tree"), good = tree + "/good", bad = tree + "/bad";
  fs::create_directory(tree);
  REQUIRE(run_hax(w.train(still("train.seed=1"), good)).status == 0);
  REQUIRE(run_hax(w.train(still("train.seed=2"), bad)).status == 0);
  // A link to itself is out of reach for every user, root included.
  const std::string best = bad + "/checkpoints/best.safetensors";
  fs::remove(best);
  fs::create_symlink("best.safetensors", best);
  const std::string longer = w.folder.file(std::string(300, 'x'));
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"train", "--out", bad}, best},
      {{"table", bad}, best},
      {{"eval", "--run", bad, "--data", w.data}, best},
      {w.train({}, longer), longer + "/config.yaml"},
      {{"train", "--out", longer}, longer + "/config.yaml"},
  };
  for (const auto& [arguments, path] : cases) {
    const auto result = run_hax(arguments);
    CAPTURE(arguments, result.err);
    CHECK(result.status == 1);
    CHECK(contains(result.err, path + ": cannot be used: "));
    CHECK_FALSE(contains(result.err, "filesystem error"));
  }
  const auto no_place = run_hax(
      {"verify-resume", "--config", w.config, "--set", "data.path=" + w.data, "--at", "2", "--steps", "4"},
      "env TMPDIR=/nonexistent ");
  CHECK(no_place.status == 1);
  CHECK(contains(no_place.err, "TMPDIR=/nonexistent: cannot be used: "));
  CHECK(contains(no_place.err, "--keep"));
  const auto table = run_hax({"table", tree});
  INFO(table.err);
  CHECK(table.status == 0);
  CHECK(contains(table.err, bad + " is left out of the table"));
  CHECK(contains(table.out, bad));
}

}  // namespace hax::test
