// What the [gpu] cases of fused kernels share: outputs and gradients against the fp64 reference on the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {

using OpOn = std::function<TensorFunction(const ops::PackedLayout&, ops::Path)>;

// By output, the error that the fp64 reference makes when its inputs and the upstream gradient are moved at random
// by `step` of themselves: the largest of three draws.
inline std::vector<double> errors_of_moved_inputs(const TensorFunction& reference, const Tensors& inputs,
                                                  const at::Tensor& upstream, const Tensors& expected,
                                                  double step) {
  std::vector<double> errors(expected.size());
  for (uint32_t draw = 0; draw < 3; ++draw) {
    uint32_t seed = 9000 + 100 * draw;
    const auto moved = [&](const at::Tensor& x) {
      const at::Tensor exact = x.to(at::kDouble);
      return exact + exact * random_normal(x.sizes(), seed++) * step;
    };
    Tensors own;
    for (const auto& input : inputs) own.push_back(moved(input));
    const auto found = output_and_gradients(reference, own, moved(upstream));
    for (size_t i = 0; i < found.size(); ++i)
      errors[i] = std::max(errors[i], relative_error(found[i], expected[i]));
  }
  return errors;
}

// Within 1.5 times the error of the same inputs through the composite operations, or within `tolerance` for
// fp32 and half a bf16 step for bf16 (a whole one for a single number) where that is smaller. Two runs give
// the same bytes. names[0] is the output's.
//
// A few numbers that are sums of many may all have come out small against what was summed; composite
// operations round only the sum, in fp32. Those may also be off by what rounding the inputs once more does,
// to bf16 or to the 22 bits of the kernels' exponentials.
inline void check_on_gpu(const OpOn& op, const std::vector<int64_t>& lengths, const Tensors& exact_inputs,
                         const at::Tensor& exact_upstream, const std::vector<std::string>& names,
                         at::ScalarType dtype, double tolerance) {
  constexpr int64_t kFew = 64;
  const auto host = layout_of(lengths), device = layout_of(lengths, 0, at::kCUDA);
  const auto inputs = converted(exact_inputs, dtype);
  const auto upstream = exact_upstream.to(dtype);
  const auto reference = op(host, ops::Path::reference);
  const auto expected = output_and_gradients(reference, converted(inputs, at::kDouble), upstream);
  const auto on_gpu = converted(inputs, dtype, at::kCUDA);
  const auto run = [&](ops::Path path) { return output_and_gradients(op(device, path), on_gpu, upstream); };
  const auto found = run(ops::Path::automatic), again = run(ops::Path::automatic);
  const auto composite = run(ops::Path::composite);
  REQUIRE(found.size() == expected.size());
  std::vector<double> of_moved;
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string name = names[i];
    CAPTURE(name, at::toString(dtype));
    CHECK(found[i].scalar_type() == dtype);
    const double floor = dtype == at::kFloat ? tolerance : expected[i].numel() == 1 ? 4e-3 : 2e-3;
    const double error = relative_error(found[i], expected[i]);
    const double of_composite = relative_error(composite[i], expected[i]);
    double bound = std::max(1.5 * of_composite, floor);
    if (error > bound && expected[i].numel() <= kFew) {
      if (of_moved.empty()) {
        const double step = (dtype == at::kFloat ? 0x1p-22 : 0x1p-9) / std::sqrt(3.0);
        of_moved = errors_of_moved_inputs(reference, inputs, upstream, expected, step);
      }
      bound = of_composite + 1.5 * of_moved[i];
    }
    CHECK(error <= bound);
    CHECK(bitwise_equal(found[i].cpu(), again[i].cpu()));
  }
}

// Rows behind cu_seqlens[batch] hold garbage in the inputs; outputs and gradients are zero there, and as
// without them elsewhere. by_row: which inputs have a row for each token.
inline void check_rows_behind_the_end(const OpOn& op, const Tensors& inputs, const std::vector<bool>& by_row,
                                      const at::Tensor& upstream, int64_t used) {
  const int64_t rows = inputs[0].size(0);
  const auto exact = layout_of({50, used - 50}, 0, at::kCUDA);
  auto roomy = layout_of({50, used - 50, rows - used}, 0, at::kCUDA);
  roomy.cu_seqlens[3].fill_(used);
  roomy.position.narrow(0, used, rows - used).fill_(3);
  Tensors with_garbage = converted(inputs, at::kFloat, at::kCUDA), own = with_garbage;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!by_row[i]) continue;
    with_garbage[i] = with_garbage[i].clone();
    with_garbage[i].narrow(0, used, rows - used).fill_(std::numeric_limits<float>::quiet_NaN());
    own[i] = own[i].narrow(0, 0, used);
  }
  const auto found = output_and_gradients(op(roomy, ops::Path::automatic), with_garbage, upstream);
  const auto expected =
      output_and_gradients(op(exact, ops::Path::automatic), own, upstream.narrow(0, 0, used));
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    if (i > 0 && !by_row[i - 1]) {
      CHECK(relative_error(found[i], expected[i]) <= 1e-6);
      continue;
    }
    CHECK(bitwise_equal(found[i].narrow(0, 0, used).cpu(), expected[i].cpu()));
    CHECK(found[i].narrow(0, used, rows - used).eq(0).all().item<bool>());
  }
}

}  // namespace hax::test
