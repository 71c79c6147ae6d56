// Accuracies, their slices and errors, and the tables that show them.
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/data/batches.h"
#include "lib/eval/report.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/train/toy_source.h"

namespace hax::test {
namespace {

EvaluatedRun fake_run(const std::string& label, std::vector<float> accuracies, std::vector<int32_t> slices) {
  EvaluatedRun run;
  run.label = label;
  run.info.config = toy_config();
  run.info.step = 12;
  run.evaluation.example_accuracy = std::move(accuracies);
  run.evaluation.slices = std::move(slices);
  run.evaluation.loss = 0.25;
  return run;
}

}  // namespace

TEST_CASE("accuracy is the mean over examples, with its standard error") {
  const auto run = fake_run("a", {1.0f, 0.5f, 0.0f, 0.5f}, {0, 0, 1, 1});
  const auto mean = accuracy(run.evaluation);
  CHECK(mean.mean == Approx(0.5));
  CHECK(mean.standard_error == Approx(std::sqrt(0.5 / 3.0 / 4.0)));
  CHECK(mean.n == 4);
  CHECK(accuracy(fake_run("b", {0.25f}, {0}).evaluation).standard_error == 0.0);
}

TEST_CASE("evaluation counts per example, then over examples, whatever the batch size") {
  const ToySource source(3, 37);
  const Config config = toy_config();
  const LanguageModel model(config.model, 8, 1, at::kCPU);
  EvaluationDraws draws(config, at::kCPU);
  const auto whole = evaluate(model, draws, source, 0, 64, at::kFloat);
  const auto pieces = evaluate(model, draws, source, 0, 5, at::kFloat);
  CHECK(whole.size() == 37);
  CHECK(whole.scored == 74);
  CHECK(whole.example_accuracy == pieces.example_accuracy);
  CHECK(whole.slices == pieces.slices);
  CHECK(whole.loss == Approx(pieces.loss).epsilon(1e-6));
  CHECK(evaluate(model, draws, source, 11, 4, at::kFloat).size() == 11);
}

TEST_CASE("data whose token ids mean something else are refused") {
  CheckpointInfo info;
  info.data.task = "toy";
  info.data.vocab_size = 60;
  info.data.slots = {{"context", 30, 8, false}, {"key", 20, 8, false}, {"value", 10, 8, true}};
  DataSpec data = info.data;
  data.slots[0].count = 4;
  CHECK_NOTHROW(check_fits(info, data, "data"));
  data.slots[0].first = 26;
  CHECK_THROWS_AS(check_fits(info, data, "data"), DataError);
  data.slots.clear();  // data from before slots
  CHECK_NOTHROW(check_fits(info, data, "data"));
}

TEST_CASE("a smaller vocabulary fits where its ids are known to mean the same, and is told of") {
  CheckpointInfo info;
  info.data.task = "toy";
  info.data.vocab_size = 200;
  info.data.slots = {{"key", 20, 8, false}, {"value", 10, 8, true}};
  DataSpec data = info.data;
  CHECK(vocabulary_note("m", info.data.vocab_size, data.vocab_size).empty());
  data.vocab_size = 100;
  CHECK_NOTHROW(check_fits(info, data, "data"));
  const std::string note = vocabulary_note("m", info.data.vocab_size, data.vocab_size);
  CHECK(contains(note, "200"));
  CHECK(contains(note, "100"));
  const auto refusal = [&] { return message_of<DataError>([&] { check_fits(info, data, "data"); }); };
  data.slots.pop_back();  // no word of the values
  CHECK(contains(refusal(), "has a vocabulary of 100 tokens, the model's has 200"));
  data.slots.clear();
  CHECK(contains(refusal(), "nothing tells that its ids mean the same"));
  info.data.slots.clear();
  CHECK(contains(refusal(), "nothing tells that its ids mean the same"));
}

TEST_CASE("a slice of the table holds its examples alone") {
  const ToySource source(1, 4);
  const auto table = accuracy_table({fake_run("a", {1.0f, 0.5f, 0.0f, 0.5f}, {0, 0, 1, 1})}, source.spec(),
                                    "toy", {"first_key"});
  const auto json = nlohmann::json::parse(table.render(TableFormat::json));
  REQUIRE(json["rows"].size() == 2);
  CHECK(json["rows"][0]["first_key"] == 0);
  CHECK(json["rows"][0]["accuracy %"] == 75.0);
  CHECK(json["rows"][1]["accuracy %"] == 25.0);
  CHECK(json["rows"][1]["examples"] == 2);
  CHECK(json["rows"][1]["chance %"] == 25.0);
  CHECK(json["rows"][0]["mode"] == "causal");
  CHECK(json["rows"][0]["patterns"] == "lsh+key_selection");
  CHECK_THROWS_AS(accuracy_table({}, source.spec(), "toy", {"n_key"}), UsageError);
}

TEST_CASE("tables render for people and programs") {
  Table table;
  table.caption = "Caption";
  table.columns = {"name", "value"};
  table.rows = {{std::string("a,\"b\""), Number{1.23456, 2}}, {std::string("c"), Number{10.0, 2}}};
  table.notes = {"note"};
  CHECK(table.render(TableFormat::text) ==
        "Caption\n\nname   value\n-----  -----\na,\"b\"   1.23\nc      10.00\n\nnote\n");
  CHECK(
      table.render(TableFormat::markdown) ==
      "Caption\n\n| name  | value |\n| ----- | ----: |\n| a,\"b\" |  1.23 |\n| c     | 10.00 |\n\nnote  \n");
  CHECK(table.render(TableFormat::csv) == "name,value\n\"a,\"\"b\"\"\",1.23456\nc,10.0\n");
}

TEST_CASE("the state is measured on the longest example, where the model can decode") {
  const ToySource source(3, 5);
  Config config = toy_config();
  const auto measured = [&] {
    const LanguageModel model(config.model, 8, 1, at::kCPU);
    return measure_state(model, EvaluationDraws(config, at::kCPU), source, at::kFloat);
  };
  const auto state = measured();
  REQUIRE(state);
  CHECK(state->tokens == 7);
  // Two layers of scan state, convolution window, two sums of lsh and one of key_selection.
  CHECK(state->bytes.recurrent == 2 * 4 * (32 * 4 + 40 * 3 + 3 * 4));
  CHECK(state->bytes.kept_keys > 0);
  EvaluatedRun run = fake_run("a", {1.0f}, {0});
  run.state = state;
  const auto row = [&] {
    const auto table = accuracy_table({run}, source.spec(), "toy", {});
    return nlohmann::json::parse(table.render(TableFormat::json))["rows"][0];
  };
  CHECK(row()["state bytes"] == state->bytes.total());
  CHECK(row()["key bytes"] == state->bytes.kept_keys);

  config.model.mode = Statistics::paper;
  run.state = measured();
  CHECK_FALSE(run.state);
  CHECK(row()["state bytes"].is_null());
}

TEST_CASE("predictions agree with the accuracies") {
  const ToySource source(3, 23);
  const Config config = toy_config();
  const LanguageModel model(config.model, 8, 1, at::kCPU);
  EvaluationDraws draws(config, at::kCPU);
  std::vector<int32_t> predicted;
  const auto whole = evaluate(model, draws, source, 0, 5, at::kFloat, {}, &predicted);
  const Batch batch = consecutive_batch(source, 0, 23);
  REQUIRE(predicted.size() == batch.targets.size());
  for (int64_t i = 0; i < whole.size(); ++i) {
    int right = 0;
    for (int32_t s = batch.cu_scored[i]; s < batch.cu_scored[i + 1]; ++s)
      right += predicted[s] == batch.targets[s];
    CHECK(whole.example_accuracy[i] == static_cast<float>(right) / 2.0f);
  }
}

TEST_CASE("questions by their distance, and what the wrong answers were") {
  const ToySource source(1, 2);
  auto run = fake_run("a", {0.5f, 0.0f}, {0, 1});
  // Two questions each: right at 4, wrong at 7; wrong at 4, wrong without a place.
  run.positions = {{0, 2, 4}, {4, 7, 4, -1}, {-1, 1, 0, 1}, {"near", "far", "never"}};
  const auto rows = [&](auto table_of, const std::vector<std::string>& by) {
    const auto table = table_of(std::vector<EvaluatedRun>{run}, source.spec(), "toy", by);
    return nlohmann::json::parse(table.render(TableFormat::json))["rows"];
  };
  const auto near = rows(accuracy_table, {"distance"});
  REQUIRE(near.size() == 2);
  CHECK(near[0]["distance"] == "none");
  CHECK(near[0]["accuracy %"] == 0.0);
  CHECK(near[0]["examples"] == 1);
  CHECK(near[1]["distance"] == "4..7");
  CHECK(near[1]["accuracy %"] == 25.0);  // 1 of 2, then 0 of 1
  CHECK(near[1]["examples"] == 2);
  CHECK(rows(accuracy_table, {"first_key", "distance"}).size() == 3);

  const auto errors = rows(error_table, {});
  REQUIRE(errors.size() == 3);
  CHECK(errors[0]["what was answered"] == "near");
  CHECK(errors[0]["share of errors %"].get<double>() == Approx(100.0 / 3.0));
  CHECK(errors[1]["share of errors %"].get<double>() == Approx(200.0 / 3.0));
  CHECK(errors[1]["errors"] == 2);
  CHECK(errors[2]["errors"] == 0);
  CHECK(errors[2]["accuracy %"] == 25.0);
  const auto sliced = rows(error_table, {"first_key"});
  REQUIRE(sliced.size() == 6);
  CHECK(sliced[1]["share of errors %"] == 100.0);
  CHECK(sliced[3]["share of errors %"] == 50.0);

  // All right: there are no shares.
  run.positions.error = {-1, -1, -1, -1};
  CHECK(rows(error_table, {})[0]["share of errors %"].is_null());

  const Slicing slicing({"distance"}, source.spec(), "toy");
  CHECK(slicing.text(0, 0) == "1");
  CHECK(slicing.text(0, 1) == "2..3");
  CHECK_THROWS_AS(Slicing({"first_key", "first_key"}, source.spec(), "toy"), UsageError);
  CHECK_THROWS_AS(Slicing({"distance", "distance"}, source.spec(), "toy"), UsageError);
  run.positions = {};
  CHECK_THROWS_AS(rows(accuracy_table, {"distance"}), std::invalid_argument);
}

TEST_CASE("a model is not evaluated on data that it cannot read") {
  CheckpointInfo info;
  info.config = toy_config();
  info.data = ToySource(1, 1).spec();
  DataSpec data = info.data;
  CHECK_NOTHROW(check_fits(info, data, "d"));
  data.vocab_size = 9;
  CHECK_THROWS_AS(check_fits(info, data, "d"), DataError);
  data = info.data;
  data.task = "mqar";
  CHECK_THROWS_AS(check_fits(info, data, "d"), DataError);
  data = info.data;
  data.padded_tokens = 99;
  CHECK_NOTHROW(check_fits(info, data, "d"));
  info.config.model.mode = Statistics::paper;
  CHECK_THROWS_AS(check_fits(info, data, "d"), DataError);
}

}  // namespace hax::test
