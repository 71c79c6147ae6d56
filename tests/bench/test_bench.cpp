#include <algorithm>

#include "lib/bench/op_case.h"
#include "lib/bench/ops.h"
#include "lib/bench/products.h"
#include "lib/bench/timing.h"
#include "tests/catch.h"

namespace hax {
namespace {

void check_work(const Work& work, double bytes, double flops) {
  CHECK(work.bytes == bytes);
  CHECK(work.flops == flops);
}

TEST_CASE("bytes and FLOPs of the ops by hand") {
  // 10 rows of 2 (4 + 4 + 2 + 2) bytes; A, D and dt_bias of 4 (8 + 4 + 4); y of 10 x 4.
  const Passes scan = selective_scan_work({10, 4, 2}, 2);
  check_work(scan.forward, 240 + 64 + 80, 7 * 80);
  check_work(scan.both, 3 * 304 + 2 * 80, 22 * 80);
  // 10 rows of 4 (8 + 4 + 6 + 6); A, D and dt_bias of 4 heads; 10 x 4 x 2 x 3 entries of states.
  const Passes ssd = ssd_work({10, 4, 2, 2, 3}, 4);
  check_work(ssd.forward, 960 + 48 + 320, 5 * 240);
  check_work(ssd.both, 3 * 1008 + 2 * 320, 16 * 240);
  // 30 values of 2 bytes, 3 channels of 4 taps and a bias.
  const Passes conv = conv_work({10, 3, 4}, 2);
  check_work(conv.forward, 60 + 60 + 60, 30 * 12);
  check_work(conv.both, 3 * 120 + 2 * 60, 30 * (12 + 22));
  const Passes attention = attention_work({10, 55, 8, 16}, 2);
  check_work(attention.forward, 640 + 320, 55 * 50);
  check_work(attention.both, 3 * 640 + 2 * 320, 55 * (50 + 99));
  check_work(lsh_work(10, 8, 3, 2), 10 * (32 + 32), 10 * 2 * 48);
  check_work(key_selection_work(10, 2, 4), 10 * (16 + 8), 10 * (32 + 32 + 8));
}

TEST_CASE("pairs are those that counting finds") {
  const std::vector<int64_t> lengths{1, 7, 20};
  const auto counted = [&](auto keys_at) {
    int64_t pairs = 0;
    for (const int64_t length : lengths)
      for (int64_t i = 0; i < length; ++i) pairs += keys_at(i);
    return pairs;
  };
  for (const int64_t share : {1, 3, 7, 50}) {
    CAPTURE(share);
    CHECK(pairs_of_share(lengths, share) == counted([&](int64_t i) { return std::min(i + 1, share); }));
    CHECK(pairs_of_dilation(lengths, share) == counted([&](int64_t i) { return (i + 1) / share; }));
  }
  CHECK(pairs_of_all(lengths) == counted([](int64_t i) { return i + 1; }));
}

TEST_CASE("lengths are full, or those of joint recall") {
  CHECK(sequence_lengths(LengthKind::padded, 3, 9, 1) == std::vector<int64_t>{9, 9, 9});
  const auto lengths = sequence_lengths(LengthKind::joint_recall, 4000, 1057, 1);
  double sum = 0.0;
  for (const int64_t length : lengths) sum += static_cast<double>(length);
  CHECK(sum / 4000 / 1057 == Approx(0.4375).margin(0.01));  // 10.5 x 22 / 528
  CHECK(*std::min_element(lengths.begin(), lengths.end()) == 1057 * 5 * 11 / 528);
  CHECK(*std::max_element(lengths.begin(), lengths.end()) == 1057);
  CHECK(sequence_lengths(LengthKind::joint_recall, 4000, 1057, 1) == lengths);
  CHECK(sequence_lengths(LengthKind::joint_recall, 4000, 1057, 2) != lengths);
  CHECK(sequence_lengths(LengthKind::joint_recall, 1, 1, 1) == std::vector<int64_t>{1});
}

TEST_CASE("quantiles of runs") {
  CHECK(quantile({3.0, 1.0, 2.0}, 0.5) == 2.0);
  CHECK(quantile({4.0, 0.0}, 0.25) == 1.0);
  CHECK(quantile({5.0}, 0.9) == 5.0);
}

TEST_CASE("a CPU's work runs as often as it is told to") {
  int64_t calls = 0;
  const Timing timing = time_work([&] { ++calls; }, at::kCPU, {4, 11});
  CHECK(calls == 15);
  CHECK(timing.milliseconds.size() == 11);
  CHECK_FALSE(timing.graph);
}

void check_peak(at::Device device) {
  const auto megabytes = [&](int64_t n) {
    return at::ones({n << 18}, at::TensorOptions().dtype(at::kFloat).device(device));
  };
  at::Tensor before = megabytes(8);
  const PeakMemory peak(device);
  CHECK(peak.bytes() == 0);
  {
    const at::Tensor a = megabytes(2);
    at::Tensor b = megabytes(3);
    b = at::Tensor();
    const at::Tensor c = megabytes(1);
  }
  const at::Tensor d = megabytes(4);
  CHECK(peak.bytes() == 5 << 20);
}

TEST_CASE("peak memory is what was there at once") { check_peak(at::kCPU); }

TEST_CASE("products inside a piece of work are found, forward and backward") {
  const at::Tensor x = at::ones({6, 5}), w = at::ones({4, 5}).requires_grad_(true);
  const at::Tensor b = at::ones({4}).requires_grad_(true), batch = at::ones({3, 2, 4});
  const auto work = [&] {
    at::linear(x, w, b).sum().backward();  // y and dw: x wants no gradient
    at::bmm(batch, batch.transpose(1, 2));
    at::bmm(batch, at::ones({1, 4, 2}).expand({3, 4, 2}));
  };
  const Products products = time_products(work, at::kCPU, {1, 3});
  CHECK(products.count == 4);
  CHECK(products.flops == 2 * (2 * 6 * 5 * 4) + 2 * (2 * 3 * 2 * 4 * 2));
  CHECK(products.milliseconds > 0);
}

const std::vector<BenchOp> kOps{BenchOp::scan, BenchOp::ssd, BenchOp::conv, BenchOp::attention};

OpSizes small_sizes() {
  OpSizes sizes;
  sizes.d_inner = 16;
  sizes.d_v = 16;
  sizes.channels = 24;
  sizes.sparse.k = 4;
  sizes.sparse.hash_bits = 2;
  sizes.sparse.patterns = {PatternKind::lsh, PatternKind::key_selection, PatternKind::dilated,
                           PatternKind::sink};
  return sizes;
}

TEST_CASE("cases are random, repeatable, and the same over both paths") {
  const SequenceShape shape{3, 40, LengthKind::joint_recall};
  for (const BenchOp op : kOps) {
    const auto cases = op_cases(op, shape, small_sizes(), at::kFloat, at::kCPU, 1);
    const auto same = op_cases(op, shape, small_sizes(), at::kFloat, at::kCPU, 1);
    const auto other = op_cases(op, shape, small_sizes(), at::kFloat, at::kCPU, 2);
    REQUIRE(cases.size() == (op == BenchOp::attention ? 3u : 1u));
    for (size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(cases[i].op);
      const at::Tensor fused = cases[i].forward(cases[i].inputs, ops::Path::automatic);
      const at::Tensor composite = cases[i].forward(cases[i].inputs, ops::Path::composite);
      CHECK(at::allclose(fused.to(at::kDouble), composite.to(at::kDouble), 1e-4, 1e-4));
      CHECK(at::equal(fused, same[i].forward(same[i].inputs, ops::Path::automatic)));
      if (!cases[i].upstream.defined()) continue;
      CHECK(cases[i].upstream.sizes() == fused.sizes());
      const at::Tensor& x = cases[i].inputs[0];
      CHECK_FALSE(at::equal(x, other[i].inputs[0]));
      CHECK(at::std(x).item<double>() == Approx(1.0).margin(0.2));
    }
  }
}

// The table's cell in the last row.
const Cell& last_cell(const Table& table, const std::string& column) {
  const auto place = std::find(table.columns.begin(), table.columns.end(), column);
  REQUIRE(place != table.columns.end());
  return table.rows.back().at(static_cast<size_t>(place - table.columns.begin()));
}

TEST_CASE("the table has a row for each ceiling, case and pass") {
  for (const BenchOp op : kOps) {
    OpBench bench;
    bench.op = op;
    bench.sequences = {{2, 9, LengthKind::padded}, {1, 30, LengthKind::padded}};
    bench.sizes = small_sizes();
    bench.timing = {0, 3};
    const Table table = bench_ops(bench);
    CHECK(table.rows.size() == 2 + 2 * (op == BenchOp::attention ? 4u : 2u));
    CHECK(std::get<int64_t>(last_cell(table, "length")) == 30);
    CHECK(std::get<std::string>(last_cell(table, "pass")) == "forward+backward");
    CHECK(std::get<int64_t>(last_cell(table, "runs")) == 3);
    for (const char* column : {"ms", "composite ms", "MB", "GFLOP", "copy %", "product %", "peak MB"}) {
      CAPTURE(column);
      CHECK(std::get<Number>(last_cell(table, column)).value > 0);
    }
    CHECK(std::holds_alternative<std::monostate>(last_cell(table, "note")));
  }
}

TEST_CASE("a shape that the fused kernel does not take says so and is not timed as if it did") {
  OpBench bench;
  bench.op = BenchOp::conv;
  bench.sequences = {{2, 9, LengthKind::padded}};
  bench.sizes = small_sizes();
  bench.sizes.width = 5;
  bench.timing = {0, 3};
  const Table table = bench_ops(bench);
  CHECK(std::get<std::string>(last_cell(table, "note")) ==
        "no fused kernel: causal_conv1d: width 5 is above 4");
  CHECK(std::holds_alternative<std::monostate>(last_cell(table, "ms")));
  CHECK(std::get<Number>(last_cell(table, "composite ms")).value > 0);
}

TEST_CASE("peak memory of a GPU is what was there at once", "[gpu]") { check_peak(at::kCUDA); }

TEST_CASE("work on a GPU is captured where nothing waits, and timed call by call elsewhere", "[gpu]") {
  const at::Tensor x = at::ones({1 << 20}, at::TensorOptions().device(at::kCUDA));
  const Timing captured = time_work([&] { at::sin(x); }, at::kCUDA, {2, 7});
  CHECK(captured.graph);
  CHECK(captured.milliseconds.size() == 7);
  const Timing called = time_work([&] { at::sin(x).sum().item<float>(); }, at::kCUDA, {2, 7});
  CHECK_FALSE(called.graph);
  CHECK(time_work([&] { at::cos(x); }, at::kCUDA, {2, 7}).graph);  // nothing of the failure stays
}

TEST_CASE("every op's fused kernel is timed on a GPU, and none is made up", "[gpu]") {
  for (const BenchOp op : kOps) {
    OpBench bench;
    bench.op = op;
    bench.sequences = {{4, 200, LengthKind::joint_recall}};
    bench.sizes = small_sizes();
    bench.dtype = at::kBFloat16;
    bench.device = at::kCUDA;
    bench.timing = {1, 5};
    const Table table = bench_ops(bench);
    CHECK(std::get<Number>(last_cell(table, "ms")).value > 0);
    CHECK(std::get<Number>(last_cell(table, "composite ms")).value > 0);
    CHECK(std::get<Number>(last_cell(table, "peak MB")).value > 0);
  }
  OpBench bench;
  bench.op = BenchOp::attention;
  bench.sequences = {{4, 200, LengthKind::padded}};
  bench.sizes = small_sizes();
  bench.sizes.d_v = 1032;
  bench.dtype = at::kBFloat16;
  bench.device = at::kCUDA;
  bench.timing = {1, 5};
  const Table table = bench_ops(bench);
  CHECK(std::holds_alternative<std::monostate>(last_cell(table, "ms")));
  CHECK(std::get<std::string>(last_cell(table, "note")).find("d_v 1032") != std::string::npos);
}

}  // namespace
}  // namespace hax
