// Writing, comparing and explaining; docs/configuration.md is held to the code.
#include <set>

#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/config/fields.h"
#include "lib/config/load.h"
#include "lib/config/nearest.h"
#include "lib/config/write.h"
#include "tests/catch.h"
#include "tests/config/scratch.h"

namespace hax {
namespace {

// Every field moved off its default, to a value that passes all checks.
Config everything_changed() {
  Config c;
  c.name = "a \"b\" \\ #: \xc3\xa4 'c'";
  c.task = {TaskKind::mqar,
            {2, 17, 3, 18, 19, 120},
            {{2, 5, 3}, 17, 121},
            {1, 3, 2, 5, 15, 999, 7, false, 122},
            {4096, {128, 64}, {9, 8}, {3, 4}, 0.1, false},
            {4097, 130, 16, 0.2, false},
            {4098, 132, 9, 5, 0.3, false},
            {257, 17},
            {4095, 15, 14, 2}};
  c.data = {DataSource::stream, "data/with space: x", 9223372036854775807, 12, 13, 14};
  c.model = {{MixerKind::mamba2, MixerKind::attention},
             Statistics::paper,
             3,
             96,
             3,
             31,
             6,
             3,
             7,
             5,
             32,
             4,
             0.2,
             {6, 63, false, 1e4 / 3},
             {}};
  c.model.sparse = {{PatternKind::lsh, PatternKind::key_selection, PatternKind::full},
                    65,
                    {31, 32, 33},
                    12,
                    HashRule::argmax,
                    24,
                    Centring::running_mean,
                    4096,
                    1.0 / 3.0};
  c.train = {7,
             401,
             65,
             0.1 + 0.2,
             Schedule::cosine,
             55,
             1e-300,
             5e-324,
             0.95,
             0.9999999999999999,
             1e-8 / 3,
             1.7976931348623157e308,
             Precision::bf16,
             DeviceKind::cuda,
             5,
             77,
             78,
             79,
             80,
             0.999,
             257,
             OnDivergence::rewind,
             4,
             5,
             OnSaveError::carry_on};
  return c;
}

TEST_CASE("what is written reads back as the identical configuration") {
  const test::Scratch scratch;
  for (const Config& config : {Config{}, everything_changed()}) {
    const std::string yaml = to_yaml(config);
    INFO(yaml);
    const Config back = load_config({scratch.write("c.yaml", yaml)}, {});
    CHECK(difference(config, back).empty());
    CHECK(to_yaml(back) == yaml);
    CHECK(to_json(back) == to_json(config));
  }
}

TEST_CASE("every field is written, compared and read back on its own") {
  Config defaults, changed = everything_changed();
  const std::vector<Field> before = fields_of(defaults), after = fields_of(changed);
  REQUIRE(before.size() == after.size());
  const std::set<std::string> fixed = {"model.sparse.centring"};  // none is not for `paper`
  std::set<std::string> keys;
  for (size_t i = 0; i < before.size(); ++i) {
    INFO(before[i].key);
    CHECK(keys.insert(before[i].key).second);
    CHECK((before[i].text() != after[i].text()) == (fixed.count(before[i].key) == 0));
    const std::string help = before[i].help;
    CHECK(help.size() > 10);
    CHECK(help.find('|') == std::string::npos);  // a cell of a Markdown table
  }
  CHECK(difference(defaults, changed).size() == before.size() - fixed.size());
}

TEST_CASE("doubles have their shortest round-trip text") {
  Config config;
  config.train.lr = 0.1;
  config.train.eps = 1e-8;
  config.train.weight_decay = 100;
  const std::string yaml = to_yaml(config);
  CHECK(yaml.find("\n  lr: 0.1\n") != std::string::npos);
  CHECK(yaml.find("\n  eps: 1e-08\n") != std::string::npos);
  CHECK(yaml.find("\n  weight_decay: 100\n") != std::string::npos);
  CHECK(yaml.starts_with("name: \"\"\ntask:\n  name: joint_recall\n  joint_recall:\n    n_context_min: 5\n"));
}

TEST_CASE("JSON has every field, nested and typed") {
  const Config config = everything_changed();
  const auto json = nlohmann::json::parse(to_json(config));
  CHECK(json["name"] == config.name);
  CHECK(json["data"]["seed"] == config.data.seed);
  CHECK(json["train"]["lr"] == config.train.lr);
  CHECK(json["train"]["device"] == "cuda");
  CHECK(json["task"]["mqar"]["random_non_queries"] == false);
  CHECK(json["model"]["sparse"]["patterns"] == nlohmann::json({"lsh", "key_selection", "full"}));
  Config copy = config;
  // Lists count by their elements: three levels, two sizes three times, two mixers, three patterns, three
  // budgets.
  CHECK(json.flatten().size() == fields_of(copy).size() + 2 + 3 + 5);
  CHECK(
      to_json(Config{}).starts_with("{\"name\":\"\",\"task\":{\"name\":\"joint_recall\",\"joint_recall\":{"));
  CHECK(to_json(Config{}, 2).starts_with("{\n  \"name\""));
}

TEST_CASE("differences name the key and both values") {
  Config a, b;
  CHECK(difference(a, b).empty());
  b.train.lr = 1e-3;
  b.model.sparse.patterns = {PatternKind::sink};
  CHECK(difference(a, b) ==
        std::vector<std::string>{"model.sparse.patterns: [] -> [sink]", "train.lr: 0.002 -> 0.001"});
  CHECK(difference(b, a)[1] == "train.lr: 0.001 -> 0.002");
}

TEST_CASE("a field is explained") {
  CHECK(explain("model.sparse.k") ==
        "model.sparse.k\n"
        "  Keys a query may attend to, split evenly over the patterns.\n"
        "  type     integer\n"
        "  range    1 <= x <= 16777216\n"
        "  unit     keys\n"
        "  default  64\n");
  CHECK(explain("train.device").find("  type     one of auto, cpu, cuda\n") != std::string::npos);
  CHECK(explain("train.lr").find("  range    > 0\n") != std::string::npos);
  CHECK(explain("train.beta1").find("  range    0 <= x < 1\n") != std::string::npos);
  CHECK(explain("name").find("  length   at most 200 bytes\n") != std::string::npos);
}

TEST_CASE("a section lists its fields, and the empty key lists all of them") {
  const std::string sparse = explain("model.sparse");
  CHECK(sparse.starts_with("model.sparse\n  The sparse attention branch"));
  CHECK(sparse.find("  model.sparse.hash_bits ") != std::string::npos);
  CHECK(sparse.find("model.d_model") == std::string::npos);
  CHECK(explain("model").find("  model.sparse.hash_bits ") != std::string::npos);
  const std::string all = explain("");
  Config config;
  for (const Field& field : fields_of(config)) {
    INFO(field.key);
    CHECK(("\n" + all).find("\n  " + field.key + " ") != std::string::npos);
    CHECK(explain(field.key).starts_with(field.key + "\n"));
  }
}

TEST_CASE("an unknown key is not explained") {
  const auto message = [](const std::string& key) -> std::string {
    try {
      explain(key);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message("model.sparse.hash_bit") ==
        "config explain: unknown key \"model.sparse.hash_bit\"; did you mean model.sparse.hash_bits?");
  CHECK(message("qqqqqqqqqq") ==
        "config explain: unknown key \"qqqqqqqqqq\"; `hax config explain` lists the known ones");
}

TEST_CASE("the nearest key") {
  CHECK(nearest_key("model.seed", {"data.seed", "train.seed", "model.steps"}) == "data.seed");
  CHECK(nearest_key("train.sed", {"data.seed", "train.seed"}) == "train.seed");
}

TEST_CASE("docs/configuration.md is what the code says") {
  INFO("regenerate it: hax config explain --markdown > docs/configuration.md");
  const bool current = read_file(HAX_SOURCE_DIR "/docs/configuration.md") == configuration_markdown();
  CHECK(current);
}

}  // namespace
}  // namespace hax
