// hax bench as a user meets it, at sizes that take no time.
#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

const Words kQuick = {"--device", "cpu", "--warmup", "0", "--repeat", "3", "--json"};

Json rows_of(Words arguments, const Words& more = kQuick) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  const auto result = run_hax(arguments);
  CAPTURE(arguments, result.err);
  REQUIRE(result.status == 0);
  return Json::parse(result.out)["rows"];
}

TEST_CASE("hax bench times each op over several shapes", "[e2e]") {
  const struct {
    Words arguments;
    std::string op, sizes;
    size_t rows;
  } cases[] = {
      {{"scan", "--d-inner", "8", "--d-state", "4"}, "selective_scan", "d_inner 8, d_state 4", 2},
      {{"ssd", "--heads", "2", "--head-dim", "4", "--groups", "2", "--d-state", "8", "--chunk", "16"},
       "ssd",
       "heads 2, head_dim 4, groups 2, d_state 8",
       2},
      {{"conv", "--channels", "6", "--width", "3"}, "causal_conv1d", "channels 6, width 3", 2},
      {{"attention", "--patterns", "lsh,sink", "--k", "6", "--hash-bits", "2", "--d-qk", "4", "--d-v", "8"},
       "attention",
       "lsh+sink, k 6, d_qk 4, d_v 8",
       3},
  };
  for (const auto& c : cases) {
    Words arguments = {"bench"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    arguments.insert(arguments.end(), {"--batch", "3,1", "--length", "20,70"});
    const Json rows = rows_of(arguments);
    REQUIRE(rows.size() == 2 + 2 * c.rows);
    CHECK(rows[0]["op"] == "copy");
    CHECK(rows[1]["op"] == "product");
    const Json& first = rows[2 + c.rows - 1];
    CHECK(first["tokens"] == 60);
    const Json& last = rows.back();
    CHECK(last["op"] == c.op);
    CHECK(last["sizes"] == c.sizes);
    CHECK(last["batch"] == 1);
    CHECK(last["length"] == 70);
    CHECK(last["dtype"] == "fp32");
    CHECK(last["pass"] == "forward+backward");
    CHECK(last["runs"] == 3);
    CHECK(last["note"].is_null());
    for (const char* column : {"ms", "p10 ms", "p90 ms", "composite ms", "MB", "GFLOP", "copy %", "product %",
                               "peak MB", "composite MB"}) {
      CAPTURE(column);
      CHECK(last[column].get<double>() > 0);
    }
    CHECK(last["p10 ms"] <= last["ms"]);
    CHECK(last["ms"] <= last["p90 ms"]);
  }
}

TEST_CASE("hax bench says what has no fused kernel, and leaves out what is not wanted", "[e2e]") {
  const Words conv = {"bench", "conv", "--channels", "4", "--batch", "2", "--length", "9"};
  Words wide = conv, alone = conv;
  wide.insert(wide.end(), {"--dtype", "bf16"});
  const Json refused = rows_of(wide).back();
  CHECK(refused["ms"].is_null());
  CHECK(refused["copy %"].is_null());
  CHECK(refused["composite ms"].get<double>() > 0);
  CHECK(refused["note"] == "no fused kernel: causal_conv1d: the input is BFloat16, not Float");
  alone.push_back("--fused-only");
  const Json fused = rows_of(alone).back();
  CHECK(fused["ms"].get<double>() > 0);
  CHECK(fused["composite ms"].is_null());
}

TEST_CASE("hax bench step tells memory and the share of matrix products", "[e2e]") {
  const Json rows = rows_of({"bench", "step", "--device", "cpu", "--steps", "2", "--warmup", "1", "--set",
                             "train.batch_size=4", "--json"},
                            {});
  REQUIRE(rows.size() == 1);
  for (const char* column : {"median ms", "peak MB", "GEMM ms", "x GEMM", "tokens/s"}) {
    CAPTURE(column);
    CHECK(rows[0][column].get<double>() > 0);
  }
  CHECK(rows[0]["x GEMM"].get<double>() ==
        Approx(rows[0]["median ms"].get<double>() / rows[0]["GEMM ms"].get<double>()));
}

TEST_CASE("hax bench refuses what makes no sense", "[e2e]") {
  const TemporaryFolder folder;
  const std::string here = folder.file("trace.json");
  write_file(here, "{}");
  const struct {
    Words arguments;
    std::string text;
  } cases[] = {
      {{"bench"}, "subcommand"},
      {{"bench", "scan", "--length", "0"}, "--length"},
      {{"bench", "scan", "--heads", "8"}, "--heads"},
      {{"bench", "scan", "--dtype", "fp16"}, "--dtype"},
      {{"bench", "scan", "--lengths", "short"}, "--lengths"},
      {{"bench", "scan", "--batch", "1,2", "--length", "3,4,5"}, "--batch"},
      {{"bench", "ssd", "--heads", "8", "--groups", "3"}, "--groups"},
      {{"bench", "conv", "--repeat", "0"}, "--repeat"},
      {{"bench", "attention", "--patterns", "lsh,windows"}, "windows"},
      {{"bench", "attention", "--k", "1"}, "--k"},
      {{"bench", "attention", "--hash-bits", "31"}, "--hash-bits"},
      {{"bench", "step", "--trace", "new.json"}, "--profile"},
      {{"bench", "step", "--profile", "--trace", here}, "exists already"},
      {{"bench", "step", "--profile", "--trace", folder.file("none/trace.json")}, "there is no folder"},
      {{"bench", "step", "--device", "cpu", "--profile"}, "--device cuda"},
  };
  for (const auto& c : cases) {
    const auto result = run_hax(c.arguments);
    CAPTURE(c.arguments, result.err);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK(result.err.find(c.text) != std::string::npos);
  }
}

}  // namespace
}  // namespace hax::test
