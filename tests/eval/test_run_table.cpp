// Runs into cells: means over seeds, best values, what is refused, and the tables that come of it.
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/eval/run_table.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {
namespace {

using Json = nlohmann::json;

RunRecord run_of(double lr, int64_t seed, double accuracy, RunStatus status = RunStatus::finished) {
  RunRecord run;
  run.path = "lr" + std::to_string(lr) + "-" + std::to_string(seed);
  run.config.name = "m";
  run.config.train.lr = lr;
  run.config.train.seed = seed;
  run.valid_accuracy = accuracy;
  run.status = status;
  run.data_fingerprint = "d";
  return run;
}

Grouping by(std::vector<std::string> rows, std::vector<std::string> columns = {}) {
  Grouping g;
  g.rows = std::move(rows);
  g.columns = std::move(columns);
  return g;
}

std::string refusal(const std::vector<RunRecord>& runs, const Grouping& grouping) {
  return message_of<UsageError>([&] { group_runs(runs, grouping); });
}

Json rows_of(const Table& table) { return Json::parse(table.render(TableFormat::json))["rows"]; }

}  // namespace

TEST_CASE("runs that differ in their seed are one cell") {
  const std::vector<RunRecord> runs = {run_of(1e-2, 1, 0.5), run_of(1e-3, 1, 0.2), run_of(1e-2, 2, 0.7)};
  const auto cells = group_runs(runs, by({"train.lr"}));
  REQUIRE(cells.size() == 2);
  CHECK(cells[0].rows[0].text == "0.001");  // numbers are in their order
  CHECK(cells[0].accuracy.n == 1);
  CHECK(cells[1].accuracy.n == 2);
  CHECK(cells[1].accuracy.mean == Approx(0.6));
  CHECK(cells[1].accuracy.half_width == Approx(12.706205 * 0.1).epsilon(1e-6));
  CHECK(cells[1].counted == std::vector<const RunRecord*>{&runs[0], &runs[2]});
}

TEST_CASE("what has no number keeps the order in which it appears") {
  std::vector<RunRecord> runs = {run_of(1, 1, 0.5), run_of(1, 1, 0.5), run_of(1, 1, 0.5)};
  runs[0].config.name = "z";
  runs[1].config.name = "a";
  runs[2].config.name = "k";
  const auto cells = group_runs(runs, by({"name"}));
  REQUIRE(cells.size() == 3);
  CHECK(cells[0].rows[0].text == "z");
  CHECK(cells[1].rows[0].text == "a");
  CHECK(cells[2].rows[0].text == "k");
}

TEST_CASE("a mean never runs over different things") {
  std::vector<RunRecord> runs = {run_of(1e-2, 1, 0.5), run_of(1e-3, 2, 0.2)};
  const std::string text = refusal(runs, by({"name"}));
  CHECK(contains(text, "name = m"));
  CHECK(contains(text, "train.lr (0.01, 0.001)"));
  CHECK(contains(text, "--best-of"));

  // Named as a choice, as a dimension, or as what is averaged over, it is fine.
  Grouping best = by({"name"}), over = by({"name"});
  best.best_of = "train.lr";
  over.over = {"train.seed", "train.lr"};
  CHECK_NOTHROW(group_runs(runs, best));
  CHECK_NOTHROW(group_runs(runs, by({"name"}, {"train.lr"})));
  CHECK(group_runs(runs, over)[0].accuracy.mean == Approx(0.35));

  // Labels and threads are no difference; other data is, also where the config cannot tell.
  runs = {run_of(1e-2, 1, 0.5), run_of(1e-2, 2, 0.2)};
  runs[1].config.train.threads = 7;
  CHECK_NOTHROW(group_runs(runs, by({"train.lr"})));
  runs[1].data_fingerprint = "e";
  CHECK(contains(refusal(runs, by({"train.lr"})), "different data"));

  // The same run twice would be two seeds.
  runs = {run_of(1e-2, 1, 0.5), run_of(1e-2, 1, 0.5)};
  runs[1].path = "copy";
  runs[1].config.name = "copy";
  CHECK(contains(refusal(runs, by({"train.lr"})), "copy are the same run"));
}

TEST_CASE("best-of takes the value with the best mean validation accuracy") {
  std::vector<RunRecord> runs = {run_of(1e-2, 1, 0.9), run_of(1e-2, 2, 0.1), run_of(1e-3, 1, 0.6),
                                 run_of(1e-3, 2, 0.6)};
  Grouping g = by({"name"});
  g.best_of = "train.lr";
  auto cell = group_runs(runs, g).at(0);
  CHECK(cell.best->text == "0.001");
  CHECK(cell.tried == 2);
  CHECK(cell.accuracy.mean == Approx(0.6));
  CHECK_FALSE(cell.uneven);

  // Also where the accuracy shown is another: the test split chooses nothing.
  for (auto& run : runs) run.accuracy = run.config.train.lr == 1e-2 ? 1.0 : 0.4;
  g.evaluated = true;
  cell = group_runs(runs, g).at(0);
  CHECK(cell.best->text == "0.001");
  CHECK(cell.accuracy.mean == Approx(0.4));

  // Of equals the first; a value without a run that ended does not compete.
  CHECK(group_runs(
            {run_of(2, 1, 0.5), run_of(1, 1, 0.5)}, g =
                                                        [&] {
                                                          Grouping plain = by({"name"});
                                                          plain.best_of = "train.lr";
                                                          return plain;
                                                        }())
            .at(0)
            .best->text == "2");
  const auto half = group_runs({run_of(2, 1, 0.9, RunStatus::stopped), run_of(1, 1, 0.5)}, g).at(0);
  CHECK(half.best->text == "1");
  CHECK(half.uneven);
  CHECK_FALSE(group_runs({run_of(2, 1, 0.9, RunStatus::stopped)}, g).at(0).best);
}

TEST_CASE("diverged runs count, unfinished ones are numbered") {
  std::vector<RunRecord> runs = {
      run_of(1, 1, 0.8), run_of(1, 2, 0.4, RunStatus::diverged), run_of(1, 3, -1.0, RunStatus::diverged),
      run_of(1, 4, 0.9, RunStatus::running), run_of(1, 5, -1.0, RunStatus::failed)};
  Grouping g = by({"name"});
  auto cell = group_runs(runs, g).at(0);
  CHECK(cell.accuracy.n == 3);
  CHECK(cell.accuracy.mean == Approx(0.4));
  CHECK(cell.diverged == 2);
  CHECK(cell.diverged_unvalidated == 1);
  CHECK(cell.unfinished == 2);
  g.count_unfinished = true;
  cell = group_runs(runs, g).at(0);
  CHECK(cell.accuracy.n == 4);
  CHECK(cell.accuracy.mean == Approx(2.1 / 4.0));
  CHECK(cell.unfinished == 2);

  RunTableOptions options;
  options.grouping = by({"name"});
  const Table table = run_list(runs, options);
  CHECK(contains(table.notes.at(0), "Runs: 5 (1 finished, 2 diverged, 1 running, 1 failed)"));
  CHECK(contains(table.notes.at(1), "never validated, it counts as 0 (1 run)"));
  CHECK(contains(table.notes.at(2), "not in the means"));
  const Json row = rows_of(table)[0];
  CHECK(row["diverged"] == 2);
  CHECK(row["unfinished"] == 2);
  CHECK(row["n"] == 3);

  // Nothing has ended: no number at all.
  const Json empty = rows_of(run_list({run_of(1, 1, 0.9, RunStatus::running)}, options))[0];
  CHECK(empty["accuracy %"].is_null());
  CHECK(empty["n"] == 0);
  CHECK(empty["unfinished"] == 1);
}

TEST_CASE("a list has full numbers and says how they came about") {
  std::vector<RunRecord> runs = {run_of(1e-2, 1, 0.51234567), run_of(1e-3, 1, 0.25), run_of(1e-3, 2, 0.75)};
  for (auto& run : runs) {
    run.parameters = 100;
    run.state = MeasuredState{{.recurrent = 48, .kept_keys = 16}, 21};
    run.chance = 0.0625;
    run.step = 10;
  }
  RunTableOptions options;
  options.grouping = by({"name"});
  options.grouping.best_of = "train.lr";
  options.details = options.bound = true;
  const Table table = run_list(runs, options);
  CHECK(table.caption ==
        "Best validation accuracy (%), joint_recall; mean over seeds with 95 % interval; best of 2 learning "
        "rates by mean validation accuracy; statistics: causal");
  const Json row = rows_of(table)[0];
  CHECK(row["best lr"] == 1e-2);
  CHECK(row["accuracy %"].get<double>() == 51.234567);
  CHECK(row["\u00b1 95 %"].is_null());
  CHECK(row["seeds"] == "1");
  CHECK(row["by seed %"] == Json{51.234567});
  CHECK(row["chance %"] == 6.25);
  CHECK(row["parameters"] == 100);
  CHECK(row["state bytes"] == 64);
  CHECK(row["key bytes"] == 16);
  CHECK(row["state tokens"] == 21);
  CHECK(row["steps"] == 10.0);
  CHECK(row["bound %"].get<double>() < 100.0);  // 512 bits for up to 256 entries of 4 bits
  CHECK(row["bound %"].get<double>() > 51.0);

  // Keys that were not all counted bound nothing; a state without keys stays what it is.
  for (auto& run : runs) run.state->tokens = kMeasuredTokens;
  CHECK(rows_of(run_list(runs, options))[0]["bound %"].is_null());
  for (auto& run : runs) run.state->bytes.kept_keys = 0;
  CHECK(rows_of(run_list(runs, options))[0]["bound %"].is_number());

  options.data_name = "data (test)";
  CHECK(contains(run_list(runs, options).caption, "Accuracy (%) on data (test), joint_recall"));
  for (auto& run : runs) run.config.task.name = TaskKind::mqar;
  CHECK_THROWS_AS(run_list(runs, options), UsageError);
}

TEST_CASE("a pivot has a cell for every row and column") {
  std::vector<RunRecord> runs;
  for (const int64_t d_state : {32, 4}) {
    for (const double lr : {1e-2, 1e-3}) {
      for (const int64_t seed : {1, 2}) {
        if (d_state == 4 && lr == 1e-3) continue;
        runs.push_back(
            run_of(lr, seed, 0.5 + 0.1 * static_cast<double>(seed) / static_cast<double>(d_state)));
        runs.back().config.model.d_state = d_state;
      }
    }
  }
  RunTableOptions options;
  options.grouping = by({"model.d_state"}, {"train.lr"});
  const Table table = run_pivot(runs, options);
  CHECK(table.columns == std::vector<std::string>{"d_state", "lr 0.001", "lr 0.01"});
  REQUIRE(table.rows.size() == 2);
  CHECK(text_of(table.rows[0][0]) == "4");
  CHECK(text_of(table.rows[0][1]) == "-");
  CHECK(text_of(table.rows[0][2]) == "53.75 \u00b1 15.88 (n 2)");
  CHECK(text_of(table.rows[1][1]) == "50.47 \u00b1 1.99 (n 2)");

  options.grouping = by({"model.d_state"}, {"name"});
  options.grouping.best_of = "train.lr";
  CHECK(text_of(run_pivot(runs, options).rows[1][1]) == "50.47 \u00b1 1.99 (n 2, lr 0.01)");
  options.details = true;
  CHECK_THROWS_AS(run_pivot(runs, options), UsageError);
}

TEST_CASE("every number shows its statistics mode") {
  std::vector<RunRecord> runs = {run_of(1, 1, 0.5), run_of(1, 1, 0.6)};
  runs[1].config.model.mode = Statistics::paper;
  RunTableOptions options;
  options.grouping = by({"name"});
  const Table table = run_list(runs, options);
  CHECK(table.columns[1] == "mode");
  CHECK(text_of(table.rows.at(0)[1]) == "causal");
  CHECK(text_of(table.rows.at(1)[1]) == "paper");
  CHECK(contains(table.caption, "statistics: causal, paper"));
  options.grouping = by({"name"}, {"model.mode"});
  CHECK(run_pivot(runs, options).columns == std::vector<std::string>{"name", "mode causal", "mode paper"});
}

TEST_CASE("runs of several tasks stand in rows of their own") {
  std::vector<RunRecord> runs = {run_of(1, 1, 0.5), run_of(1, 1, 0.6)};
  runs[1].config.task.name = TaskKind::mqar;
  RunTableOptions options;
  options.grouping = by({"model.d_state"});
  const Table table = run_list(runs, options);
  CHECK(table.columns[1] == "task.name");
  CHECK(text_of(table.rows.at(0)[1]) == "joint_recall");
  CHECK(text_of(table.rows.at(1)[1]) == "mqar");
  options.grouping = by({"model.d_state"}, {"task.name"});
  CHECK(run_pivot(runs, options).columns.size() == 3);
}

TEST_CASE("a table says which runs were trained on its examples") {
  std::vector<RunRecord> runs = {run_of(1, 1, 0.5), run_of(1, 2, 0.6)};
  runs[1].seen = 3;
  RunTableOptions options;
  options.grouping = by({"name"});
  options.data_name = "d (test)";
  const auto said = [](const Table& table) {
    int64_t times = 0;
    for (const auto& note : table.notes)
      times += contains(note, "was trained on 3 examples of d (test)") ? 1 : 0;
    return times;
  };
  CHECK(said(run_list(runs, options)) == 1);
  runs[1].seen = 0;
  CHECK(said(run_list(runs, options)) == 0);
}

TEST_CASE("a table says where a model's vocabulary is another, and which runs are left out") {
  std::vector<RunRecord> runs = {run_of(1, 1, 0.5), run_of(1, 2, 0.6)};
  runs[0].accuracy = runs[1].accuracy = 0.5;
  runs[0].vocab_size = 100;
  runs[1].vocab_size = 200;
  RunTableOptions options;
  options.grouping = by({"name"});
  options.data_name = "d (test)";
  options.data_vocab_size = 100;
  options.left_out = {"runs/a", "runs/b"};
  const std::string text = run_list(runs, options).render(TableFormat::text);
  CHECK(contains(text, runs[1].path + " was trained with a vocabulary of 200 tokens"));
  CHECK_FALSE(contains(text, runs[0].path + " was trained with"));
  CHECK(contains(text, "Left out, since they could not be read: runs/a, runs/b."));
}

TEST_CASE("columns whose keys end alike are written out") {
  RunTableOptions options;
  options.grouping = by({"train.seed", "data.seed"});
  options.grouping.over.clear();
  const Table table = run_list({run_of(1, 1, 0.5)}, options);
  CHECK(table.columns[0] == "train.seed");
  CHECK(table.columns[1] == "data.seed");
  CHECK(contains(table.caption, "single runs"));
}

}  // namespace hax::test
