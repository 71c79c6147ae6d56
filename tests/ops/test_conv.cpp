#include "lib/ops/causal_conv1d.h"

#include "tests/catch.h"
#include "tests/ops/gpu_checks.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::Path;
using test::relative_error;
using test::Tensors;

test::TensorFunction conv_on(const ops::PackedLayout& layout, Path path) {
  return [&layout, path](const Tensors& in) { return ops::causal_conv1d(in[0], in[1], in[2], layout, path); };
}

Tensors random_inputs(int64_t T, int64_t channels, int64_t width, uint32_t seed) {
  return {test::random_normal({T, channels}, seed), test::random_normal({channels, width}, seed + 1),
          test::random_normal({channels}, seed + 2)};
}

void check_close(const Tensors& found, const Tensors& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_error(found[i], expected[i]) <= tolerance);
  }
}

TEST_CASE("causal_conv1d agrees with the official reference", "[golden]") {
  const auto file = Safetensors::open(test::golden_path("causal_conv1d.safetensors"));
  int cases = 0;
  for (const auto& info : file.tensors()) {
    const auto slash = info.name.find('/');
    if (info.name.substr(slash + 1) != "x") continue;
    ++cases;
    const std::string name = info.name.substr(0, slash + 1);
    CAPTURE(name);
    const auto load = [&](const std::string& what) { return test::load_tensor(file, name + what); };
    const auto packed = [&](const std::string& what) {
      return load(what).transpose(1, 2).flatten(0, 1).contiguous();
    };
    const auto layout = test::layout_of(std::vector<int64_t>(info.shape[0], info.shape[2]));
    for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
      check_close(test::output_and_gradients(conv_on(layout, path),
                                             {packed("x"), load("weight"), load("bias")}, packed("grad_out")),
                  {packed("out"), packed("grad.x"), load("grad.weight"), load("grad.bias")}, 6e-6);
    }
  }
  CHECK(cases > 0);
}

TEST_CASE("causal_conv1d's gradients are those of its finite differences") {
  const auto layout = test::layout_of({6, 1, 3});
  const auto inputs = random_inputs(10, 3, 4, 1);
  const auto upstream = test::random_normal({10, 3}, 9);
  const auto expected = test::output_and_differences(conv_on(layout, Path::reference), inputs, upstream);
  for (const auto path : {Path::reference, Path::composite}) {
    check_close(test::output_and_gradients(conv_on(layout, path), inputs, upstream), expected, 1e-8);
  }
}

TEST_CASE("causal_conv1d agrees with its fp64 reference at every width and length") {
  // Sequences that begin, end and cross at the kernel's blocks of 128 tokens.
  const std::vector<std::vector<int64_t>> ragged{
      {1}, {1, 1, 2, 3, 4, 5}, {128, 128}, {126, 1, 3, 260}, {400}};
  uint32_t seed = 10;
  for (const auto& lengths : ragged) {
    const auto layout = test::layout_of(lengths);
    for (const int64_t channels : {1, 5, 48}) {
      for (const int64_t width : {1, 2, 3, 4, 6}) {
        CAPTURE(lengths, channels, width);
        const auto inputs =
            test::converted(random_inputs(layout.total(), channels, width, ++seed), at::kFloat);
        // Away from zero, so that the bias's gradient is no difference of large sums.
        const auto upstream = test::random_normal({layout.total(), channels}, seed + 7, at::kFloat) + 1;
        const auto exact = test::converted(inputs, at::kDouble);
        const auto expected = test::output_and_gradients(conv_on(layout, Path::reference), exact, upstream);
        check_close(test::output_and_gradients(conv_on(layout, Path::automatic), inputs, upstream), expected,
                    3e-6);
        check_close(test::output_and_gradients(conv_on(layout, Path::composite), inputs, upstream), expected,
                    3e-6);
        check_close(test::output_and_gradients(conv_on(layout, Path::composite), exact, upstream), expected,
                    1e-13);
      }
    }
  }
}

TEST_CASE("causal_conv1d reads a slice of wider rows, and any strides") {
  const auto layout = test::layout_of({20, 150});
  auto inputs = test::converted(random_inputs(170, 24, 4, 3), at::kFloat);
  const auto upstream = test::random_normal({170, 24}, 4, at::kFloat);
  const auto expected = test::output_and_gradients(conv_on(layout, Path::automatic), inputs, upstream);
  const auto wide = at::cat({at::ones({170, 7}), inputs[0], at::ones({170, 2})}, 1);
  for (const auto& x : {wide.narrow(1, 7, 24), inputs[0].t().contiguous().t()}) {
    REQUIRE(!x.is_contiguous());
    const auto found =
        test::output_and_gradients(conv_on(layout, Path::automatic), {x, inputs[1], inputs[2]}, upstream);
    for (size_t i = 0; i < found.size(); ++i) CHECK(test::bitwise_equal(found[i], expected[i]));
  }
  // The gradient of a sum arrives expanded from one number.
  const auto sum = test::output_and_gradients(
      [&](const Tensors& in) { return ops::causal_conv1d(in[0], in[1], in[2], layout).sum(); }, inputs,
      at::Tensor());
  const auto ones = test::output_and_gradients(conv_on(layout, Path::automatic), inputs, at::Tensor());
  for (size_t i = 1; i < sum.size(); ++i) CHECK(test::bitwise_equal(sum[i], ones[i]));
}

TEST_CASE("causal_conv1d gives the same bytes for any number of threads") {
  const int before = at::get_num_threads();
  const auto layout = test::layout_of({300, 7, 500});
  const auto inputs = test::converted(random_inputs(807, 20, 4, 5), at::kFloat);
  const auto upstream = test::random_normal({807, 20}, 6, at::kFloat);
  at::set_num_threads(1);
  const auto one = test::output_and_gradients(conv_on(layout, Path::automatic), inputs, upstream);
  at::set_num_threads(2);
  const auto two = test::output_and_gradients(conv_on(layout, Path::automatic), inputs, upstream);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) CHECK(test::bitwise_equal(one[i], two[i]));
}

TEST_CASE("causal_conv1d keeps packed sequences apart") {
  const auto layout = test::layout_of(test::random_lengths(20, 9, 7));
  const auto inputs = test::converted(random_inputs(layout.total(), 6, 4, 8), at::kFloat);
  for (const auto path : {Path::composite, Path::automatic}) {
    const auto together = ops::causal_conv1d(inputs[0], inputs[1], inputs[2], layout, path);
    for (int64_t b = 0; b < layout.batch(); ++b) {
      const auto own = inputs[0].narrow(0, layout.offsets[b], layout.seqlen(b));
      const auto y = ops::causal_conv1d(own, inputs[1], inputs[2], test::layout_of({layout.seqlen(b)}), path);
      CHECK(relative_error(y, together.narrow(0, layout.offsets[b], layout.seqlen(b))) <= 1e-6);
    }
  }
}

TEST_CASE("causal_conv1d_step walks a sequence as causal_conv1d does") {
  const auto layout = test::layout_of({12});
  for (const auto type : {at::kDouble, at::kFloat}) {
    for (const int64_t width : {1, 2, 4, 7}) {
      const auto in = test::converted(random_inputs(12, 5, width, 50), type);
      at::Tensor window = at::zeros({width - 1, 5}, at::TensorOptions().dtype(type));
      Tensors y;
      for (int64_t t = 0; t < 12; ++t)
        y.push_back(ops::causal_conv1d_step(in[0].narrow(0, t, 1), in[1], in[2], window));
      CAPTURE(width);
      CHECK(relative_error(at::cat(y), ops::causal_conv1d(in[0], in[1], in[2], layout)) <=
            (type == at::kDouble ? 1e-14 : 1e-6));
      CHECK(window.equal(in[0].narrow(0, 12 - (width - 1), width - 1)));
      at::Tensor other = at::zeros({width, 5}, window.options());
      CHECK_THROWS_AS(ops::causal_conv1d_step(in[0].narrow(0, 0, 1), in[1], in[2], other),
                      std::invalid_argument);
    }
  }
}

TEST_CASE("causal_conv1d refuses shapes that do not fit") {
  const auto layout = test::layout_of({4});
  CHECK_THROWS_AS(ops::causal_conv1d(at::ones({3, 2}), at::ones({2, 4}), at::ones({2}), layout),
                  std::invalid_argument);
  CHECK_THROWS_AS(ops::causal_conv1d(at::ones({4, 2}), at::ones({3, 4}), at::ones({2}), layout),
                  std::invalid_argument);
  CHECK_THROWS_AS(ops::causal_conv1d(at::ones({4, 2}), at::ones({2, 4}), at::ones({3}), layout),
                  std::invalid_argument);
}

// {rows, weight, bias} -> the pieces side by side.
test::TensorFunction pieces_on(const ops::PackedLayout& layout, Path path, int64_t first,
                               const std::vector<ops::Columns>& pieces) {
  return [&layout, path, first, pieces](const Tensors& in) {
    return at::cat(ops::causal_conv1d_pieces(in[0], first, in[1], in[2], layout, pieces, path), 1);
  };
}

// Rows of 4 + 12 + 4 columns, those in the middle convolved: each once, some of them more often, and not all.
struct Pieces {
  int64_t first = 4;
  std::vector<ops::Columns> columns;
  int64_t total() const {
    int64_t sum = 0;
    for (const auto& piece : columns) sum += piece.count;
    return sum;
  }
};
const Pieces kPieces[] = {{4, {{0, 4}, {4, 12}, {16, 4}}},
                          {4, {{16, 4}, {4, 8}, {12, 2}, {14, 2}, {4, 8}, {0, 4}, {6, 3}}},
                          {4, {{5, 4}, {0, 2}}},
                          {8, {{0, 8}, {8, 12}, {8, 12}, {8, 12}, {8, 12}}},
                          {0, {{12, 8}, {0, 12}, {0, 12}}}};

TEST_CASE("pieces of convolved and other columns are the convolution and slices") {
  const auto layout = test::layout_of({9, 1, 20});
  for (const Pieces& p : kPieces) {
    Tensors inputs = random_inputs(30, 20, 4, 40);
    inputs[1] = inputs[1].narrow(0, 0, 12), inputs[2] = inputs[2].narrow(0, 0, 12);
    const auto upstream = test::random_normal({30, p.total()}, 50);
    const auto by_hand = [&](const Tensors& in) {
      const at::Tensor y =
          ops::causal_conv1d(in[0].narrow(1, p.first, 12), in[1], in[2], layout, Path::reference);
      const at::Tensor all =
          at::cat({in[0].narrow(1, 0, p.first), y, in[0].narrow(1, p.first + 12, 8 - p.first)}, 1);
      Tensors parts;
      for (const auto& piece : p.columns) parts.push_back(all.narrow(1, piece.begin, piece.count));
      return at::cat(parts, 1);
    };
    check_close(
        test::output_and_gradients(pieces_on(layout, Path::composite, p.first, p.columns), inputs, upstream),
        test::output_and_gradients(by_hand, inputs, upstream), 1e-12);
    check_close(test::output_and_gradients(pieces_on(layout, Path::automatic, p.first, p.columns),
                                           test::converted(inputs, at::kFloat), upstream),
                test::output_and_gradients(by_hand, inputs, upstream), 3e-6);
  }
}

TEST_CASE("pieces over an edge of the convolved columns are refused") {
  const auto layout = test::layout_of({4});
  const auto cut = [&](const std::vector<ops::Columns>& pieces) {
    return ops::causal_conv1d_pieces(at::ones({4, 8}), 2, at::ones({4, 3}), at::ones({4}), layout, pieces);
  };
  CHECK_THROWS_AS(cut({{0, 3}}), std::invalid_argument);
  CHECK_THROWS_AS(cut({{5, 2}}), std::invalid_argument);
  CHECK_THROWS_AS(cut({{7, 2}}), std::invalid_argument);
  CHECK_THROWS_AS(cut(std::vector<ops::Columns>(ops::kMostConvolvedPieces + 1, {2, 4})),
                  std::invalid_argument);
}

const std::vector<std::string> kNames{"y", "dx", "dweight", "dbias"};

TEST_CASE("causal_conv1d on a GPU agrees with the fp64 reference", "[gpu]") {
  const test::OpOn op = [](const ops::PackedLayout& layout, Path path) { return conv_on(layout, path); };
  uint32_t seed = 300;
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{
           {100, 1, 64, 3}, {1}, {1, 1, 2}, {400}, {15, 16, 17, 18, 130, 2, 300}}) {
    for (const int64_t channels : {48, 192, 1, 63}) {
      for (const int64_t width : {1, 2, 3, 4}) {
        CAPTURE(lengths, channels, width);
        const auto inputs = random_inputs(test::layout_of(lengths).total(), channels, width, seed += 10);
        const auto upstream = test::random_normal(inputs[0].sizes(), seed + 5);
        for (const auto dtype : {at::kFloat, at::kBFloat16})
          test::check_on_gpu(op, lengths, inputs, upstream, kNames, dtype, 3e-6);
      }
    }
  }
}

TEST_CASE("pieces on a GPU agree with the fp64 reference", "[gpu]") {
  for (const Pieces& p : kPieces) {
    const test::OpOn op = [&p](const ops::PackedLayout& layout, Path path) {
      return pieces_on(layout, path, p.first, p.columns);
    };
    Tensors inputs = random_inputs(230, 20, 4, 60);
    inputs[1] = inputs[1].narrow(0, 0, 12), inputs[2] = inputs[2].narrow(0, 0, 12);
    const auto upstream = test::random_normal({230, p.total()}, 61);
    for (const auto dtype : {at::kFloat, at::kBFloat16})
      test::check_on_gpu(op, {100, 1, 129}, inputs, upstream, kNames, dtype, 3e-6);
  }
}

TEST_CASE("causal_conv1d on a GPU leaves zeros behind the last sequence", "[gpu]") {
  const test::OpOn op = [](const ops::PackedLayout& layout, Path path) { return conv_on(layout, path); };
  const auto inputs = random_inputs(200, 64, 4, 90);
  const auto upstream = test::random_normal({200, 64}, 91, at::kFloat).to(at::kCUDA);
  for (const int64_t used : {80, 64, 199})
    test::check_rows_behind_the_end(op, inputs, {true, false, false}, upstream, used);
}

}  // namespace
}  // namespace hax
