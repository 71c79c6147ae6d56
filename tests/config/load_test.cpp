// Good inputs: layers, includes, settings and the forms that values may take.
#include "lib/config/load.h"
#include <filesystem>

#include "lib/base/error.h"
#include "lib/config/names.h"
#include "lib/config/write.h"
#include "tests/catch.h"
#include "tests/config/scratch.h"

namespace hax {
namespace {

using test::Scratch;
using Lines = std::vector<std::string>;

Lines changes(const Config& config) { return difference(Config{}, config); }

Lines changes_of(const std::string& text) {
  const Scratch scratch;
  return changes(load_config({scratch.write("c.yaml", text)}, {}));
}

TEST_CASE("without layers the defaults hold, and they pass every check") {
  CHECK(changes(load_config({}, {})).empty());
}

TEST_CASE("empty files are valid layers") {
  for (const char* text :
       {"", "\n", "# a comment\n", "---\n", "---\n...\n", "{}\n", "\xef\xbb\xbf", "   \n\t\n", "\r\n"}) {
    INFO("text: " << text);
    CHECK(changes_of(text).empty());
  }
}

TEST_CASE("values in every form that is allowed") {
  struct Good {
    std::string text;
    Lines changes;
  };
  const std::vector<Good> table = {
      {"name: HAX", {"name: \"\" -> \"HAX\""}},
      {"name: \"64\"", {"name: \"\" -> \"64\""}},
      {"name: 'yes'", {"name: \"\" -> \"yes\""}},
      {"name: Mamba2 + HAX, k 64 # the paper's", {"name: \"\" -> \"Mamba2 + HAX, k 64\""}},
      {"name: \"\"", {}},
      {"name: \"null\"", {"name: \"\" -> \"null\""}},
      {"name: \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
       {"name: \"\" -> \"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""}},
      {"name: >-\n  two\n  words\n", {"name: \"\" -> \"two words\""}},
      {"name: 'it''s \"x\" \\'", {"name: \"\" -> \"it's \\\"x\\\" \\\\\""}},
      {"data: {path: data/x-1.2}", {"data.path: \"\" -> \"data/x-1.2\""}},
      {"data: {path: 2024-06-30}", {"data.path: \"\" -> \"2024-06-30\""}},
      {"train: {lr: 1e-3}", {"train.lr: 0.002 -> 0.001"}},
      {"train: {lr: 1}", {"train.lr: 0.002 -> 1"}},
      {"train: {lr: .5}", {"train.lr: 0.002 -> 0.5"}},
      {"train: {lr: +5.E-1}", {"train.lr: 0.002 -> 0.5"}},
      {"train: {weight_decay: -0.0}", {"train.weight_decay: 0.01 -> -0"}},
      {"train: {seed: 9223372036854775807}", {"train.seed: 1 -> 9223372036854775807"}},
      {"train: {seed: +7}", {"train.seed: 1 -> 7"}},
      {"train: {seed: 0}", {"train.seed: 1 -> 0"}},
      {"task: {mqar: {random_non_queries: false}}", {"task.mqar.random_non_queries: true -> false"}},
      {"train: {device: cpu, precision: 'bf16'}",
       {"train.precision: fp32 -> bf16", "train.device: auto -> cpu"}},
      {"model: {sparse: {patterns: [key_selection, lsh]}}",
       {"model.sparse.patterns: [] -> [key_selection, lsh]"}},
      {"model:\n  sparse:\n    patterns:\n    - sink\n    - \"full\"\n",
       {"model.sparse.patterns: [] -> [sink, full]"}},
      {"model: {sparse: {patterns: []}}", {}},
      {"model: {}", {}},
      {"\xef\xbb\xbfmodel:\r\n  layers: 3\r\nname: a\r\n", {"name: \"\" -> \"a\"", "model.layers: 2 -> 3"}},
      {"model:\n  # a comment\n\n  layers: 3 # here\n", {"model.layers: 2 -> 3"}},
      {"model:\n\t# a tab before a comment\n  layers:\t3\n", {"model.layers: 2 -> 3"}},
      {"---\nname: a\n...\n", {"name: \"\" -> \"a\""}},
      {"name: a", {"name: \"\" -> \"a\""}},
  };
  for (const Good& good : table) {
    INFO("text: " << good.text);
    CHECK(changes_of(good.text) == good.changes);
  }
}

template <class E>
void check_names(const std::string& key) {
  for (const auto& entry : enum_names<E>) {
    const Config config = load_config({}, {key + "=" + std::string(entry.name)});
    CHECK(explain(key).find(std::string(entry.name)) != std::string::npos);
    CHECK(to_yaml(config).find(": " + std::string(entry.name) + "\n") != std::string::npos);
    CHECK(value_of<E>(name_of(entry.value)) == entry.value);
  }
}

TEST_CASE("every name of every enumeration can be set") {
  check_names<TaskKind>("task.name");
  check_names<DataSource>("data.source");
  check_names<Statistics>("model.mode");
  check_names<HashRule>("model.sparse.hash_rule");
  check_names<Centring>("model.sparse.centring");
  check_names<Schedule>("train.schedule");
  check_names<Precision>("train.precision");
  check_names<DeviceKind>("train.device");
  for (const auto& entry : enum_names<MixerKind>) {
    // A value in place of a list is a list of one.
    std::vector<std::string> sets = {"model.mixer=" + std::string(entry.name)};
    if (entry.value == MixerKind::constructive) {
      sets.insert(sets.end(), {"model.sparse={patterns: [lsh], centring: none}", "train.steps=0"});
    }
    const Config config = load_config({}, sets);
    CHECK(config.model.mixer == std::vector<MixerKind>{entry.value});
  }
  for (const auto& entry : enum_names<PatternKind>) {
    const Config config = load_config({}, {"model.sparse.patterns=[" + std::string(entry.name) + "]"});
    CHECK(config.model.sparse.patterns == std::vector<PatternKind>{entry.value});
  }
  CHECK(name_of(DeviceKind::automatic) == "auto");
  CHECK(all_names<Centring>() == "running_mean, none");
  CHECK_FALSE(value_of<Centring>("running").has_value());
  CHECK_THROWS_AS(name_of(static_cast<Centring>(7)), std::invalid_argument);
}

TEST_CASE("a later layer overrides an earlier one, field by field") {
  const Scratch scratch;
  const std::string first = scratch.write("a.yaml", "name: a\nmodel:\n  layers: 3\n  d_state: 8\n");
  const std::string second = scratch.write("b.yaml", "model:\n  layers: 4\n");
  CHECK(changes(load_config({first, second}, {})) ==
        Lines{"name: \"\" -> \"a\"", "model.layers: 2 -> 4", "model.d_state: 32 -> 8"});
  CHECK(changes(load_config({second, first}, {})) ==
        Lines{"name: \"\" -> \"a\"", "model.layers: 2 -> 3", "model.d_state: 32 -> 8"});
  CHECK(changes(load_config({first, second}, {"model.layers=5", "model={d_state: 16}", "model.layers=6"})) ==
        Lines{"name: \"\" -> \"a\"", "model.layers: 2 -> 6", "model.d_state: 32 -> 16"});
  CHECK(changes(load_config({first}, {"name=\"\"", "model.layers=2", "model.d_state=32"})).empty());
}

TEST_CASE("a setting's value is YAML") {
  CHECK(changes(load_config(
            {}, {"model.sparse.patterns=[lsh,key_selection]", "name=a=b", "data.path=\"x # y\""})) ==
        Lines{"name: \"\" -> \"a=b\"", "data.path: \"\" -> \"x # y\"",
              "model.sparse.patterns: [] -> [lsh, key_selection]"});
}

TEST_CASE("an include is applied before the including file's own keys, wherever it stands") {
  const Scratch scratch;
  scratch.write("base.yaml", "name: base\nmodel:\n  layers: 3\n  d_state: 8\n");
  scratch.write("part/data.yaml", "include: ../base.yaml\ndata:\n  seed: 7\n");
  scratch.write("part/train.yaml", "data:\n  seed: 8\ntrain:\n  steps: 500\n");
  const std::string top =
      scratch.write("part/top.yaml", "name: top\nmodel:\n  layers: 4\ninclude: [data.yaml, train.yaml]\n");
  CHECK(changes(load_config({top}, {})) == Lines{"name: \"\" -> \"top\"", "data.seed: 1 -> 8",
                                                 "model.layers: 2 -> 4", "model.d_state: 32 -> 8",
                                                 "train.steps: 2000 -> 500"});
  const std::string single = scratch.write("single.yaml", "include: part/data.yaml\nname: single\n");
  CHECK(changes(load_config({single}, {})) == Lines{"name: \"\" -> \"single\"", "data.seed: 1 -> 7",
                                                    "model.layers: 2 -> 3", "model.d_state: 32 -> 8"});
  const std::string absolute =
      scratch.write("x/absolute.yaml", "include: \"" + scratch.path("base.yaml") + "\"\n");
  CHECK(changes(load_config({absolute}, {})).size() == 3);
  // Two files may include the same one: only a cycle is refused.
  const std::string twice = scratch.write("twice.yaml", "include: [base.yaml, base.yaml]\n");
  CHECK(changes(load_config({twice, twice}, {})).size() == 3);
}

TEST_CASE("every file of configs/ can be loaded") {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(HAX_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    INFO(entry.path().string());
    CHECK_NOTHROW(load_config({entry.path().string()}, {}));
    ++files;
  }
  CHECK(files > 0);
}

}  // namespace
}  // namespace hax
