// What holds for every task, also for one that is added later: data_gen and the programs rely on it.
#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "data_gen/bench.h"
#include "data_gen/draw.h"
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/config/load.h"
#include "lib/data/dataset.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"
#include "tests/data_gen/tasks.h"

using namespace hax;
using hax::test::drawn;
using hax::test::every_task;
using hax::test::message_of;
using hax::test::Scratch;
using hax::test::small_task;

namespace {

DataConfig counts(int64_t train, int64_t valid, int64_t test) {
  DataConfig data;
  data.train_examples = train;
  data.valid_examples = valid;
  data.test_examples = test;
  return data;
}

void generate(const TaskConfig& task, const DataConfig& data, const std::string& out, int threads) {
  GenerateOptions options;
  options.out = out;
  options.threads = threads;
  options.program_version = "test";
  generate_dataset(task, data, options);
}

std::string bytes_of(const std::string& folder) {
  std::string bytes = read_file(manifest_path(folder));
  for (Split split : kSplits) bytes += read_file(split_path(folder, split));
  return bytes;
}

bool same_spec(const DataSpec& a, const DataSpec& b) {
  return a.task == b.task && a.vocab_size == b.vocab_size && a.padded_tokens == b.padded_tokens &&
         a.target_kind == b.target_kind && a.slice_columns == b.slice_columns && a.chance == b.chance;
}

}  // namespace

TEST_CASE("every task: its name, its sizes and its spec fit together") {
  for (TaskKind kind : every_task()) {
    const auto task = make_task(small_task(kind));
    INFO(name_of(kind));
    CHECK(task->spec().task == name_of(kind));
    CHECK(task->spec().chance > 0.0);
    CHECK(task->spec().chance <= 0.5);
    int64_t longest = 0;
    std::vector<int64_t> of_size(static_cast<size_t>(task->sizes()));
    for (int64_t i = 0; i < 100; ++i) {
      for (int64_t size = 0; size < task->sizes(); ++size) {
        REQUIRE(task->count_at(size, i) == of_size[static_cast<size_t>(size)]);
      }
      ++of_size[static_cast<size_t>(task->size_at(i))];
      longest = std::max(longest, static_cast<int64_t>(drawn(*task, i).tokens.size()));
    }
    CHECK(longest == task->spec().padded_tokens);
    for (int64_t count : of_size) CHECK(count > 0);
    for (int64_t size = 0; size < task->sizes(); ++size) {
      CHECK(!task->size_name(size).empty());
      CHECK(task->log2_distinct(size) > 10.0);
    }
  }
}

TEST_CASE("every task: the defaults draw examples, too") {
  for (TaskKind kind : every_task()) {
    TaskConfig config;
    config.name = kind;
    const auto task = make_task(config);
    const Example example = drawn(*task, 0);
    INFO(name_of(kind));
    CHECK(task->fault(example) == "");
    CHECK(task->oracle(example) == example.targets);
  }
}

TEST_CASE("every task: examples have no fault, and the oracle solves them from earlier tokens alone") {
  for (TaskKind kind : every_task()) {
    const auto task = make_task(small_task(kind));
    for (int64_t i = 0; i < 200; ++i) {
      const Example example = drawn(*task, i);
      INFO(name_of(kind) << ", example " << i);
      REQUIRE(task->fault(example) == "");
      REQUIRE(!example.scored.empty());
      REQUIRE(task->oracle(example) == example.targets);
      const std::vector<int32_t> sources = task->sources(example);
      REQUIRE(sources.size() == example.scored.size());
      for (size_t j = 0; j < sources.size(); ++j) {
        REQUIRE(sources[j] >= 0);
        REQUIRE(sources[j] < example.scored[j]);
        REQUIRE(example.tokens[static_cast<size_t>(sources[j])] == example.targets[j]);
      }
      // Each answer again after everything behind its question is wiped.
      if (i % 20 != 0) continue;
      for (size_t j = 0; j < sources.size(); ++j) {
        Example wiped = example;
        std::fill(wiped.tokens.begin() + example.scored[j] + 1, wiped.tokens.end(), 0);
        REQUIRE(task->oracle(wiped)[j] == example.targets[j]);
        REQUIRE(task->sources(wiped)[j] == sources[j]);
      }
    }
  }
}

TEST_CASE("every task: a damaged example has a fault") {
  for (TaskKind kind : every_task()) {
    const auto task = make_task(small_task(kind));
    for (int64_t i = 0; i < 12; ++i) {
      const Example good = drawn(*task, i);
      INFO(name_of(kind) << ", example " << i);
      for (size_t j = 0; j < good.scored.size(); ++j) {
        Example bad = good;
        bad.targets[j] = (bad.targets[j] + 1) % static_cast<int32_t>(task->spec().vocab_size);
        REQUIRE(task->fault(bad) != "");
        bad = good;
        ++bad.scored[j];
        REQUIRE(task->fault(bad) != "");
        // The token that holds the answer, or the question, becomes another one of its kind or none.
        for (const int32_t position : {good.scored[j], task->sources(good)[j]}) {
          for (const int32_t token : {0, 2, static_cast<int32_t>(task->spec().vocab_size) - 1, -1}) {
            bad = good;
            bad.tokens[static_cast<size_t>(position)] = token;
            if (bad.tokens == good.tokens) continue;
            INFO("token " << token << " at " << position);
            REQUIRE(task->fault(bad) != "");
          }
        }
      }
      for (size_t column = 0; column < good.slices.size(); ++column) {
        Example bad = good;
        bad.slices[column] += 1000;
        REQUIRE(task->fault(bad) != "");
      }
      Example bad = good;
      bad.tokens.pop_back();
      REQUIRE(task->fault(bad) != "");
      bad = good;
      bad.tokens.push_back(0);
      REQUIRE(task->fault(bad) != "");
      bad = good;
      bad.scored.pop_back();
      bad.targets.pop_back();
      REQUIRE(task->fault(bad) != "");
      bad = good;
      bad.slices.clear();
      REQUIRE(task->fault(bad) != "");
    }
  }
}

TEST_CASE("every task: kinds of errors cover every wrong prediction, and each occurs") {
  for (TaskKind kind : every_task()) {
    const auto task = make_task(small_task(kind));
    const std::vector<std::string> kinds = task->error_kinds();
    const std::set<std::string> names(kinds.begin(), kinds.end());
    INFO(name_of(kind));
    REQUIRE(kinds.size() >= 3);
    CHECK(names.size() == kinds.size());
    std::set<size_t> seen;
    for (int64_t i = 0; i < 40; ++i) {
      const Example example = drawn(*task, i);
      for (size_t j = 0; j < example.scored.size(); ++j) {
        for (int32_t token = 0; token < task->spec().vocab_size; ++token) {
          if (token != example.targets[j]) seen.insert(task->error_kind(example, j, token));
        }
      }
      CHECK_THROWS_AS(task->error_kind(example, 0, example.targets[0]), std::invalid_argument);
      CHECK_THROWS_AS(task->error_kind(example, example.scored.size(), 0), std::invalid_argument);
    }
    CHECK(seen.size() == kinds.size());
    CHECK(*seen.rbegin() == kinds.size() - 1);
  }
}

TEST_CASE("every task: examples can be drawn as text") {
  for (TaskKind kind : every_task()) {
    const auto task = make_task(small_task(kind));
    const Example example = drawn(*task, 3);
    const std::string text = draw(*task, example);
    INFO(text);
    CHECK(task->roles(example).size() == example.tokens.size());
    CHECK(text.starts_with(std::string(name_of(kind)) + ", "));
    // The legend has one mark, each scored position another.
    CHECK(std::count(text.begin(), text.end(), '?') == static_cast<int64_t>(example.scored.size()) + 1);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 130);
    Example bad = example;
    bad.tokens[0] = -1;
    CHECK_THROWS_AS(draw(*task, bad), DataError);
  }
}

TEST_CASE("every task: a dataset is the same bytes on any number of threads, its examples distinct") {
  for (TaskKind kind : every_task()) {
    INFO(name_of(kind));
    const Scratch scratch;
    const TaskConfig config = small_task(kind);
    const DataConfig data = counts(400, 60, 50);
    generate(config, data, scratch / "one", 1);
    generate(config, data, scratch / "three", 3);
    CHECK((bytes_of(scratch / "one") == bytes_of(scratch / "three")));

    const Dataset dataset = Dataset::open(scratch / "one", 2);
    const auto task = make_task(config);
    CHECK(same_spec(dataset.spec(), task->spec()));
    // A manifest tells its task, and the task's section of a config.
    CHECK(make_task(dataset.manifest(), scratch / "one")->parameters() == task->parameters());
    CHECK(make_task(task_config(dataset.manifest(), scratch / "one"))->parameters() == task->parameters());
    std::set<std::vector<int32_t>> seen;
    Example example;
    Example alone;
    for (Split split : kSplits) {
      for (int64_t i = 0; i < dataset.split(split).size(); ++i) {
        dataset.split(split).example(i, example);
        REQUIRE(task->fault(example) == "");
        REQUIRE(seen.insert(example.tokens).second);
        draw_example(*task, data.seed, split, i, 0, alone);
        REQUIRE(alone.tokens == example.tokens);
        REQUIRE(alone.targets == example.targets);
      }
    }
    CHECK(seen.size() == 510);

    const TaskStream stream(make_task(config), data.seed, evaluation_examples(dataset), "");
    CHECK(same_spec(stream.spec(), dataset.spec()));
    Batch batch = empty_batch(stream.spec());
    for (int64_t i = 0; i < 50; ++i) {
      stream.example(i, example);
      REQUIRE(task->fault(example) == "");
      stream.append_example(i, batch);
      dataset.split(Split::train).append_example(i, batch);
    }
    CHECK(batch.size() == 100);
    CHECK(batch.max_seqlen() <= stream.spec().input_length());
  }
}

TEST_CASE("every task: more distinct examples than exist are refused before anything is written") {
  for (TaskKind kind : every_task()) {
    TaskConfig config = small_task(kind);
    config.joint_recall = {1, 1, 1, 1, 2, 0};
    config.multilevel_joint_recall = {{1, 1}, 2, 0};
    config.noisy_joint_recall = {1, 1, 1, 1, 2, 7, 1, true, 0};
    config.mqar = {5, {4}, {1}, {}, 1.0, false};
    config.mqar_compositional = {7, 6, 1, 1.0, false};
    config.mqar_forgetting = {7, 6, 1, 1, 1.0, false};
    config.induction_heads = {3, 2};
    config.selective_copying = {1, 1, 2, 1};
    const auto task = make_task(config);
    const double exist = std::exp2(task->log2_distinct(0));
    INFO(name_of(kind) << ": " << exist);
    REQUIRE(exist < 100.0);
    const auto n = static_cast<int64_t>(std::llround(exist));
    // The count is exact: so many distinct examples come up, and never more.
    std::set<std::vector<int32_t>> distinct;
    for (int64_t i = 0; i < 4000; ++i) distinct.insert(drawn(*task, i).tokens);
    CHECK(static_cast<int64_t>(distinct.size()) == n);
    const Scratch scratch;
    CHECK_THROWS_AS(generate(config, counts(n, 1, 0), scratch / "d", 1), UsageError);
    CHECK(!std::filesystem::exists(scratch / "d"));
    generate(config, counts(n - 1, 1, 0), scratch / "d", 1);
    CHECK(Dataset::open(scratch / "d", 1).split(Split::train).size() == n - 1);
  }
}

TEST_CASE("every task: the quick config generates, and the benchmark runs on it") {
  const std::string folder = HAX_SOURCE_DIR "/configs/quick/";
  for (TaskKind kind : every_task()) {
    const std::string name = kind == TaskKind::joint_recall ? "joint_recall_4x4" : std::string(name_of(kind));
    INFO(name);
    Config config = load_config({folder + "data_" + name + ".yaml"}, {"data.train_examples=200"});
    CHECK(config.task.name == kind);
    config.data.valid_examples = config.data.test_examples = 20;
    const Scratch scratch;
    std::ostringstream out;
    bench_generation(config.task, config.data, scratch / "d", 2, out);
    CHECK(test::mentions(out.str(), "240.00"));
    CHECK(!std::filesystem::exists(scratch / "d"));
  }
}
