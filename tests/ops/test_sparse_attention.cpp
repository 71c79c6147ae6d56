// Sparse attention: kernel and composite against the reference in fp64, outputs and every gradient.
#include "lib/ops/sparse_attention.h"
#include "tests/catch.h"
#include "tests/ops/key_sets.h"

namespace hax::test {
namespace {

using ops::EmptyRow;
using ops::Path;

struct Problem {
  Tensors inputs;  // Q, K, V in fp64
  at::Tensor grad_output;
};

Problem random_problem(int64_t T, int64_t d_qk, int64_t d_v, uint32_t seed) {
  return {
      {random_normal({T, d_qk}, seed), random_normal({T, d_qk}, seed + 1), random_normal({T, d_v}, seed + 2)},
      random_normal({T, d_v}, seed + 3)};
}

TensorFunction attention(const ops::KeySet& keys, const ops::PackedLayout& layout, Path path,
                         int64_t max_pairs = ops::kMaxPairs) {
  return [&, path, max_pairs](const Tensors& in) {
    return ops::sparse_attention(in[0], in[1], in[2], keys, layout, path, max_pairs);
  };
}

// With inputs from N(0, 1) the gradients of Q and K are differences of dot products of size 10: that is the
// scale of their rounding errors where `expected` is zero or small.
void check_close(const Tensors& actual, const Tensors& expected, double tolerance) {
  const char* names[] = {"output", "dQ", "dK", "dV"};
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(names[i]);
    REQUIRE(actual[i].sizes() == expected[i].sizes());
    const at::Tensor difference =
        (actual[i].to(at::kCPU, at::kDouble) - expected[i].to(at::kCPU, at::kDouble)).abs();
    const double scale = i == 1 || i == 2 ? 10.0 : 1.0;
    CHECK(difference.max().item<double>() <=
          tolerance * std::max(scale, expected[i].abs().max().item<double>()));
  }
}

TEST_CASE("Sparse attention, every pattern and pair: kernel and composite are the reference") {
  const std::vector<int64_t> lengths = {1, 2, 21, 9, 34};
  const auto layout = layout_of(lengths, 40);
  // Lengths compiled into the kernel, and others.
  for (auto [d_qk, d_v] : {std::pair{16, 64}, std::pair{7, 10}}) {
    const Problem problem = random_problem(layout.total(), d_qk, d_v, 11);
    for (EmptyRow empty_row : {EmptyRow::zero, EmptyRow::uniform}) {
      for (int64_t width : {1, 5, 60}) {
        for (const auto& [name, keys] : all_key_sets(layout, width, empty_row, 3)) {
          CAPTURE(name, width, d_qk, empty_row == EmptyRow::uniform);
          const auto exact = output_and_gradients(attention(keys, layout, Path::reference), problem.inputs,
                                                  problem.grad_output);
          check_close(output_and_gradients(attention(keys, layout, Path::composite), problem.inputs,
                                           problem.grad_output),
                      exact, 1e-13);
          const Tensors fp32 = converted(problem.inputs, at::kFloat);
          check_close(
              output_and_gradients(attention(keys, layout, Path::automatic), fp32, problem.grad_output),
              exact, 3e-6);
          check_close(
              output_and_gradients(attention(keys, layout, Path::composite), fp32, problem.grad_output),
              exact, 3e-6);
        }
      }
    }
  }
}

TEST_CASE("Sparse attention at the sizes of a model: kernel and composite agree with fp64") {
  const auto layout = layout_of({74, 150, 3});
  const Problem problem = random_problem(layout.total(), 32, 128, 21);
  for (const auto& [name, keys] : all_key_sets(layout, 16, EmptyRow::zero, 8)) {
    CAPTURE(name);
    const auto exact =
        output_and_gradients(attention(keys, layout, Path::composite), problem.inputs, problem.grad_output);
    check_close(output_and_gradients(attention(keys, layout, Path::automatic),
                                     converted(problem.inputs, at::kFloat), problem.grad_output),
                exact, 4e-6);
  }
}

TEST_CASE("The reference's gradients are those of central differences") {
  const auto layout = layout_of({1, 7, 4}, 9);
  const Problem problem = random_problem(layout.total(), 3, 4, 31);
  for (const auto& [name, keys] : all_key_sets(layout, 2, EmptyRow::zero, 4)) {
    CAPTURE(name);
    const auto f = attention(keys, layout, Path::reference);
    check_close(output_and_gradients(f, problem.inputs, problem.grad_output),
                output_and_differences(f, problem.inputs, problem.grad_output), 1e-8);
  }
}

// The official way: a dense softmax over the padded sequence with a huge negative number added where a key is
// not allowed. It drowns every score of a row without keys, which makes the row uniform, but lets gradients
// through.
TEST_CASE("Uniform rows are those of an additive mask, gradients included") {
  const auto layout = layout_of({1, 7, 4}, 9);
  const Problem problem = random_problem(layout.total(), 3, 4, 35);
  for (const auto& [name, keys] : all_key_sets(layout, 2, EmptyRow::uniform, 4)) {
    CAPTURE(name);
    const at::Tensor allowed = at::constant_pad_nd(ops::allowed_mask(keys, layout), {0, 9 - 7, 0, 9 - 7});
    const TensorFunction official = [&](const Tensors& in) {
      const auto padded = [&](const at::Tensor& x) {
        return at::constant_pad_nd(ops::to_padded(x, layout), {0, 0, 0, 9 - 7});
      };
      const at::Tensor S = at::bmm(padded(in[0]), padded(in[1]).transpose(1, 2));
      const at::Tensor P = at::softmax(S + allowed.logical_not().to(at::kDouble) * -1e30, 2);
      return ops::to_packed(at::bmm(P, padded(in[2])).narrow(1, 0, 7), layout);
    };
    const auto exact = output_and_gradients(official, problem.inputs, problem.grad_output);
    for (Path path : {Path::reference, Path::composite}) {
      check_close(output_and_gradients(attention(keys, layout, path), problem.inputs, problem.grad_output),
                  exact, 1e-13);
    }
    check_close(output_and_gradients(attention(keys, layout, Path::automatic),
                                     converted(problem.inputs, at::kFloat), problem.grad_output),
                exact, 3e-6);
  }
}

TEST_CASE("The composite in blocks is the composite at once") {
  const auto layout = layout_of({12, 5, 20}, 25);
  const Problem problem = random_problem(layout.total(), 4, 6, 41);
  for (EmptyRow empty_row : {EmptyRow::zero, EmptyRow::uniform}) {
    for (const auto& [name, keys] : all_key_sets(layout, 3, empty_row, 6)) {
      const auto whole =
          output_and_gradients(attention(keys, layout, Path::composite), problem.inputs, problem.grad_output);
      for (int64_t max_pairs : {1, 100, 500}) {
        CAPTURE(name, max_pairs);
        check_close(output_and_gradients(attention(keys, layout, Path::composite, max_pairs), problem.inputs,
                                         problem.grad_output),
                    whole, 1e-13);
      }
    }
  }
}

TEST_CASE("Scores far apart neither overflow nor vanish") {
  const auto layout = layout_of({6});
  Problem problem = random_problem(6, 4, 4, 51);
  problem.inputs[0] *= 1000;
  const ops::KeySet keys{{ops::FullMembership{}}};
  const auto exact =
      output_and_gradients(attention(keys, layout, Path::reference), problem.inputs, problem.grad_output);
  for (Path path : {Path::automatic, Path::composite}) {
    const auto actual = output_and_gradients(attention(keys, layout, path),
                                             converted(problem.inputs, at::kFloat), problem.grad_output);
    CHECK(relative_error(actual[0], exact[0]) <= 1e-3);  // a score of 1000s carries an error of 1e-4
    for (const auto& tensor : actual) CHECK(tensor.isfinite().all().item<bool>());
  }
}

TEST_CASE("The kernel gives the same bits for any number of threads, and for strided inputs") {
  const auto layout = layout_of(random_lengths(23, 60, 7));
  const int64_t T = layout.total();
  const Tensors wide = converted(
      {random_normal({T, 40}, 1), random_normal({T, 33}, 2), random_normal({T, 100}, 3)}, at::kFloat);
  const at::Tensor grad_output = random_normal({T, 64}, 4);
  const Tensors sliced{wide[0].slice(1, 5, 37), wide[1].slice(1, 0, 32), wide[2].slice(1, 30, 94)};
  Tensors dense;
  for (const auto& tensor : sliced) dense.push_back(tensor.clone());
  const auto parts = all_memberships(layout, 8, 9);
  const ops::KeySet keys{{parts[4].membership, parts[5].membership}, EmptyRow::zero};
  const int threads_before = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = output_and_gradients(attention(keys, layout, Path::automatic), dense, grad_output);
  for (int threads : {1, 2, 3, 5}) {
    at::set_num_threads(threads);
    for (const Tensors& inputs : {dense, sliced}) {
      const auto many = output_and_gradients(attention(keys, layout, Path::automatic), inputs, grad_output);
      for (size_t i = 0; i < one.size(); ++i) CHECK(bitwise_equal(many[i], one[i]));
    }
  }
  at::set_num_threads(threads_before);
}

TEST_CASE("Shapes that do not fit are refused") {
  const auto layout = layout_of({4});
  const auto x = at::zeros({4, 3});
  CHECK_THROWS_AS(ops::sparse_attention(x, at::zeros({4, 2}), x, {}, layout), std::invalid_argument);
  CHECK_THROWS_AS(ops::sparse_attention(x, x, at::zeros({5, 3}), {}, layout), std::invalid_argument);
}

// Cases of their own for each dtype: the race detector takes minutes for one.
void check_gpu_against_cpu(at::ScalarType dtype, double tolerance) {
  const auto lengths = random_lengths(9, 300, 12);
  const auto layout = layout_of(lengths, 320), device_layout = layout_of(lengths, 320, at::kCUDA);
  const Problem problem = random_problem(layout.total(), 32, 128, 61);
  for (EmptyRow empty_row : {EmptyRow::zero, EmptyRow::uniform}) {
    const auto sets = all_key_sets(layout, 16, empty_row, 13);
    const auto device_sets = all_key_sets(device_layout, 16, empty_row, 13);
    for (size_t s = 0; s < sets.size(); ++s) {
      CAPTURE(sets[s].name);
      // Both start from the same rounded numbers.
      const Tensors rounded = converted(converted(problem.inputs, dtype), at::kDouble);
      const at::Tensor grad_output = problem.grad_output.to(dtype).to(at::kDouble);
      const auto exact =
          output_and_gradients(attention(sets[s].keys, layout, Path::composite), rounded, grad_output);
      for (int64_t max_pairs : {int64_t{100000}, ops::kMaxPairs}) {
        check_close(
            output_and_gradients(attention(device_sets[s].keys, device_layout, Path::automatic, max_pairs),
                                 converted(rounded, dtype, at::kCUDA), grad_output),
            exact, tolerance);
      }
    }
  }
}

TEST_CASE("Sparse attention on a GPU is that on the CPU in fp32", "[gpu]") {
  check_gpu_against_cpu(at::kFloat, 1e-5);
}
TEST_CASE("Sparse attention on a GPU is that on the CPU in bf16", "[gpu]") {
  check_gpu_against_cpu(at::kBFloat16, 8e-3);
}

// Long and short sequences, heads of these widths: lists of keys and queries go on over several spans of the
// kernels, tiles over several sizes of rows.
void check_gpu_widths(at::ScalarType dtype, double tolerance,
                      const std::vector<std::pair<int64_t, int64_t>>& widths) {
  const std::vector<int64_t> lengths = {1, 2500, 64, 65, 129, 2};
  const auto layout = layout_of(lengths, 2600, at::kCUDA);
  for (auto [d_qk, d_v] : widths) {
    const Problem problem = random_problem(layout.total(), d_qk, d_v, 71);
    const Tensors inputs = converted(
        {problem.inputs[0] / std::sqrt(d_qk), problem.inputs[1], problem.inputs[2]}, dtype, at::kCUDA);
    const Tensors exact_inputs = converted(inputs, at::kDouble, at::kCUDA);
    const at::Tensor grad_output = problem.grad_output.to(at::kCUDA, dtype).to(at::kDouble);
    for (EmptyRow empty_row : {EmptyRow::zero, EmptyRow::uniform}) {
      const auto parts = all_memberships(layout, 20, 14);
      const std::vector<ops::KeySet> sets = {{{parts[4].membership, parts[5].membership}, empty_row},
                                             {{parts[4].membership}, empty_row},
                                             {{parts[3].membership}, empty_row},
                                             {{parts[0].membership}, empty_row},
                                             {{parts[1].membership, parts[2].membership}, empty_row}};
      for (size_t s = 0; s < sets.size(); ++s) {
        CAPTURE(d_qk, d_v, s, empty_row == EmptyRow::uniform, at::toString(dtype));
        const auto exact =
            output_and_gradients(attention(sets[s], layout, Path::composite), exact_inputs, grad_output);
        const auto run = [&] {
          return output_and_gradients(attention(sets[s], layout, Path::automatic), inputs, grad_output);
        };
        const auto found = run(), again = run();
        check_close(found, exact, tolerance);
        for (size_t i = 0; i < found.size(); ++i) CHECK(bitwise_equal(found[i].cpu(), again[i].cpu()));
      }
    }
  }
}

TEST_CASE("Sparse attention on a GPU: narrow heads in fp32", "[gpu]") {
  check_gpu_widths(at::kFloat, 1e-5, {{8, 64}, {32, 72}, {24, 8}});
}
TEST_CASE("Sparse attention on a GPU: narrow heads in bf16", "[gpu]") {
  check_gpu_widths(at::kBFloat16, 8e-3, {{8, 64}, {32, 72}, {24, 8}});
}
TEST_CASE("Sparse attention on a GPU: wide heads in fp32", "[gpu]") {
  check_gpu_widths(at::kFloat, 1e-5, {{16, 128}, {64, 256}, {64, 128}});
}
TEST_CASE("Sparse attention on a GPU: wide heads in bf16", "[gpu]") {
  check_gpu_widths(at::kBFloat16, 8e-3, {{16, 128}, {64, 256}, {64, 128}});
}

}  // namespace
}  // namespace hax::test
