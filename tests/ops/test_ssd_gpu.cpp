#include "tests/catch.h"
#include "tests/ops/gpu_checks.h"
#include "tests/ops/ssd_inputs.h"

namespace hax {
namespace {

using ops::PackedLayout;
using ops::Path;
using test::SsdShape;
using test::Tensors;

std::vector<std::string> output_and_gradient_names() {
  std::vector<std::string> names{"y"};
  for (const auto& name : test::kSsdInputs) names.push_back("gradient of " + name);
  return names;
}

const test::OpOn kSsdOn = [](const PackedLayout& layout, Path path) { return test::ssd_on(layout, path); };

TEST_CASE("ssd on a GPU agrees with the fp64 reference", "[gpu]") {
  const std::vector<std::vector<int64_t>> ragged{{100, 1, 64, 37}, {1},         {1, 1, 1},
                                                 {64, 64},         {63, 65, 2}, {300, 5, 7, 9, 130}};
  uint32_t seed = 200;
  for (const auto& lengths : ragged) {
    for (const SsdShape& s :
         {SsdShape{8, 16, 1, 32}, SsdShape{4, 6, 2, 10}, SsdShape{2, 64, 1, 128}, SsdShape{6, 32, 2, 64},
          SsdShape{1, 1, 1, 1}, SsdShape{24, 16, 2, 16}, SsdShape{3, 33, 1, 17}}) {
      seed += 10;
      const auto inputs = test::random_ssd_inputs(test::layout_of(lengths).total(), s, seed);
      const auto upstream = test::random_normal({inputs[0].size(0), s.H, s.P}, seed + 9);
      CAPTURE(lengths, s.H, s.P, s.G, s.N);
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        test::check_on_gpu(kSsdOn, lengths, inputs, upstream, output_and_gradient_names(), dtype, 4e-6);
      }
    }
  }
}

TEST_CASE("ssd on a GPU holds over two thousand tokens", "[gpu]") {
  const auto inputs = test::random_ssd_inputs(2007, {8, 16, 1, 32}, 7);
  const auto upstream = test::random_normal({2007, 8, 16}, 8);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    test::check_on_gpu(kSsdOn, {2000, 7}, inputs, upstream, output_and_gradient_names(), dtype, 4e-6);
  }
}

TEST_CASE("ssd on a GPU stays right where steps and decays are far out of range", "[gpu]") {
  auto inputs = test::random_ssd_inputs(170, {2, 4, 1, 8}, 5);
  inputs[1] = inputs[1] * 40;
  inputs[2] = at::tensor({-60.0, -1e-3});
  const auto upstream = test::random_normal({170, 2, 4}, 6);
  test::check_on_gpu(kSsdOn, {100, 70}, inputs, upstream, output_and_gradient_names(), at::kFloat, 4e-6);
}

TEST_CASE("ssd on a GPU leaves zeros behind the last sequence", "[gpu]") {
  const auto inputs = test::random_ssd_inputs(200, {8, 16, 1, 32}, 90);
  const auto upstream = test::random_normal({200, 8, 16}, 91, at::kFloat).to(at::kCUDA);
  for (const int64_t used : {80, 64, 199}) {
    CAPTURE(used);
    test::check_rows_behind_the_end(kSsdOn, inputs, {true, true, false, true, true, false, false}, upstream,
                                    used);
  }
}

TEST_CASE("ssd on a GPU reads slices of wider rows", "[gpu]") {
  const auto layout = test::layout_of({20, 133}, 0, at::kCUDA);
  const int64_t T = 153, H = 8, P = 16, N = 32;
  auto inputs = test::converted(test::random_ssd_inputs(T, {H, P, 1, N}, 30), at::kBFloat16, at::kCUDA);
  const auto upstream = test::random_normal({T, H, P}, 31, at::kBFloat16).to(at::kCUDA);
  const auto expected = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream);
  for (const int64_t shift : {0, 1}) {
    const auto wide = at::cat({at::zeros({T, shift}, inputs[0].options()), inputs[0].flatten(1),
                               inputs[3].flatten(1), inputs[4].flatten(1), inputs[1]},
                              1);
    auto slices = inputs;
    slices[0] = wide.narrow(1, shift, H * P).view({T, H, P});
    slices[3] = wide.narrow(1, shift + H * P, N).view({T, 1, N});
    slices[4] = wide.narrow(1, shift + H * P + N, N).view({T, 1, N});
    slices[1] = wide.narrow(1, shift + H * P + 2 * N, H);
    const auto found = test::output_and_gradients(test::ssd_on(layout, Path::automatic), slices, upstream);
    for (size_t i = 0; i < found.size(); ++i) {
      CHECK(test::bitwise_equal(found[i].cpu(), expected[i].cpu()));
    }
  }
}

// Many short sequences, which a device walks in bf16 (lib/ops/cuda/ssd_walk.h): short, long, and of all
// lengths around a step's and a chunk's.
std::vector<int64_t> many_lengths(int64_t count) {
  std::vector<int64_t> lengths{1, 15, 16, 17, 63, 64, 65, 200};
  for (int64_t i = 0; static_cast<int64_t>(lengths.size()) < count; ++i)
    lengths.push_back(1 + i * 13 % (count > 100 ? 7 : 40));
  return lengths;
}

TEST_CASE("ssd on a GPU walks many sequences", "[gpu]") {
  uint32_t seed = 300;
  // Heads of a group in one block, in clusters of two, three and seven, and with P and N that fill no tile.
  for (const auto& [s, count] : {std::pair{SsdShape{8, 16, 1, 32}, 40},
                                 {SsdShape{4, 16, 2, 16}, 70},
                                 {SsdShape{24, 16, 2, 16}, 12},
                                 {SsdShape{7, 16, 1, 32}, 40},
                                 {SsdShape{4, 6, 2, 10}, 70},
                                 {SsdShape{9, 15, 1, 17}, 30},
                                 {SsdShape{1, 1, 1, 1}, 256}}) {
    seed += 10;
    const auto lengths = many_lengths(count);
    const auto inputs = test::random_ssd_inputs(test::layout_of(lengths).total(), s, seed);
    const auto upstream = test::random_normal({inputs[0].size(0), s.H, s.P}, seed + 9);
    CAPTURE(count, s.H, s.P, s.G, s.N);
    test::check_on_gpu(kSsdOn, lengths, inputs, upstream, output_and_gradient_names(), at::kBFloat16, 4e-6);
  }
}

TEST_CASE("ssd on a GPU walks segments of long sequences side by side", "[gpu]") {
  uint32_t seed = 350;
  // Sequences that end around a segment's edges, among others of one segment; heads of a group in one block
  // and in clusters of two and three.
  for (const auto& [s, count] :
       {std::pair{SsdShape{8, 16, 1, 32}, 40}, {SsdShape{4, 16, 2, 16}, 70}, {SsdShape{9, 15, 1, 17}, 30}}) {
    seed += 10;
    std::vector<int64_t> lengths{1, 257, 1, 256, 255, 2, 700, 513, 63, 64};
    while (static_cast<int64_t>(lengths.size()) < count) lengths.push_back(1);
    const auto inputs = test::random_ssd_inputs(test::layout_of(lengths).total(), s, seed);
    const auto upstream = test::random_normal({inputs[0].size(0), s.H, s.P}, seed + 9);
    CAPTURE(count, s.H, s.P, s.G, s.N);
    test::check_on_gpu(kSsdOn, lengths, inputs, upstream, output_and_gradient_names(), at::kBFloat16, 4e-6);
  }
}

TEST_CASE("ssd on a GPU walks the states of wide heads", "[gpu]") {
  for (const SsdShape& s : {SsdShape{24, 64, 1, 128}, SsdShape{24, 33, 2, 40}, SsdShape{48, 16, 1, 64}}) {
    const std::vector<int64_t> lengths{70, 1, 130, 64};
    const auto inputs = test::random_ssd_inputs(265, s, 400);
    const auto upstream = test::random_normal({265, s.H, s.P}, 409);
    CAPTURE(s.H, s.P, s.G, s.N);
    test::check_on_gpu(kSsdOn, lengths, inputs, upstream, output_and_gradient_names(), at::kBFloat16, 4e-6);
  }
}

TEST_CASE("ssd's walks on a GPU write zeros behind the last sequence and read slices of wider rows",
          "[gpu]") {
  const int64_t H = 8, P = 16, N = 32;
  auto lengths = many_lengths(40);
  lengths.push_back(600);  // of several segments
  const auto count = static_cast<int64_t>(lengths.size());
  const auto used = test::layout_of(lengths).total(), rows = used + 100;
  const auto exact = test::layout_of(lengths, 0, at::kCUDA);
  lengths.push_back(100);
  auto roomy = test::layout_of(lengths, 0, at::kCUDA);
  roomy.cu_seqlens[count + 1].fill_(used);
  roomy.position.narrow(0, used, 100).fill_(3);
  const auto inputs =
      test::converted(test::random_ssd_inputs(rows, {H, P, 1, N}, 500), at::kBFloat16, at::kCUDA);
  const auto upstream = test::random_normal({rows, H, P}, 509, at::kBFloat16).to(at::kCUDA);
  const std::vector<size_t> by_row{0, 1, 3, 4};
  Tensors own = inputs;
  for (const auto i : by_row) own[i] = inputs[i].narrow(0, 0, used);
  const auto expected =
      test::output_and_gradients(test::ssd_on(exact, Path::automatic), own, upstream.narrow(0, 0, used));
  for (const int64_t shift : {0, 1}) {
    const auto wide = at::cat({at::zeros({rows, shift}, inputs[0].options()), inputs[0].flatten(1),
                               inputs[3].flatten(1), inputs[4].flatten(1), inputs[1]},
                              1);
    wide.narrow(0, used, 100).fill_(std::numeric_limits<float>::quiet_NaN());
    Tensors slices = inputs;
    slices[0] = wide.narrow(1, shift, H * P).view({rows, H, P});
    slices[3] = wide.narrow(1, shift + H * P, N).view({rows, 1, N});
    slices[4] = wide.narrow(1, shift + H * P + N, N).view({rows, 1, N});
    slices[1] = wide.narrow(1, shift + H * P + 2 * N, H);
    const auto found = test::output_and_gradients(test::ssd_on(roomy, Path::automatic), slices, upstream);
    for (size_t i = 0; i < found.size(); ++i) {
      CAPTURE(shift, i);
      if (found[i].size(0) != rows) {
        CHECK(test::bitwise_equal(found[i].cpu(), expected[i].cpu()));
        continue;
      }
      CHECK(test::bitwise_equal(found[i].narrow(0, 0, used).cpu(), expected[i].cpu()));
      CHECK(found[i].narrow(0, used, 100).eq(0).all().item<bool>());
    }
  }
}

}  // namespace
}  // namespace hax
