// Times of the scans' CUDA kernels, shown on request: test_ops "[.bench]".
#ifdef HAX_CUDA
#include <cstdio>

#include "lib/ops/selective_scan.h"
#include "lib/ops/ssd.h"
#include "tests/catch.h"
#include "tests/ops/gpu_time.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using test::Tensors;

struct Sequences {
  const char* name;
  std::vector<int64_t> lengths;
};

// 64 sequences of 5 .. 1057 tokens, 464 on average, like joint recall's.
std::vector<int64_t> ragged_lengths() {
  std::vector<int64_t> lengths = test::random_lengths(63, 905, 3);
  for (auto& length : lengths) length += 4;
  lengths.push_back(1057);
  return lengths;
}

std::vector<Sequences> paper_sequences() {
  return {{"64 x 1057", std::vector<int64_t>(64, 1057)},
          {"64 ragged", ragged_lengths()},
          {"64 x 512", std::vector<int64_t>(64, 512)},
          {"1 x 16384", {16384}},
          {"1 x 131072", {131072}}};
}

at::Tensor random_on_gpu(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::randn(sizes, at::TensorOptions().device(at::kCUDA)).to(dtype);
}

void print_times(const char* op, const Sequences& sequences, const std::string& shape,
                 const test::TensorFunction& f, const Tensors& inputs) {
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().requires_grad_(true));
  const at::Tensor upstream = random_on_gpu(inputs[0].sizes(), inputs[0].scalar_type());
  const double forward = test::gpu_milliseconds([&] {
    at::NoGradGuard no_grad;
    f(inputs);
  });
  const double both = test::gpu_milliseconds([&] { torch::autograd::grad({f(leaves)}, leaves, {upstream}); });
  std::printf("%-5s %-11s %-18s %-9s forward %7.3f ms, forward + backward %7.3f ms\n", op, sequences.name,
              shape.c_str(), at::toString(inputs[0].scalar_type()), forward, both);
}

void time_ssd(const Sequences& sequences, int64_t H, int64_t P, int64_t N, at::ScalarType dtype) {
  const auto layout = test::layout_of(sequences.lengths, 0, at::kCUDA);
  const int64_t T = layout.total();
  const Tensors inputs{random_on_gpu({T, H, P}, dtype),       random_on_gpu({T, H}, dtype) - 2,
                       -random_on_gpu({H}, at::kFloat).exp(), random_on_gpu({T, 1, N}, dtype),
                       random_on_gpu({T, 1, N}, dtype),       random_on_gpu({H}, at::kFloat),
                       random_on_gpu({H}, at::kFloat)};
  const auto f = [&](const Tensors& in) {
    return ops::ssd({in[0], in[1], in[2], in[3], in[4], in[5], in[6]}, layout);
  };
  print_times("ssd", sequences,
              "H " + std::to_string(H) + " P " + std::to_string(P) + " N " + std::to_string(N), f, inputs);
}

void time_selective_scan(const Sequences& sequences, int64_t channels, int64_t N, at::ScalarType dtype) {
  const auto layout = test::layout_of(sequences.lengths, 0, at::kCUDA);
  const int64_t T = layout.total();
  const Tensors inputs{random_on_gpu({T, channels}, dtype),
                       random_on_gpu({T, channels}, dtype) - 2,
                       -random_on_gpu({channels, N}, at::kFloat).exp(),
                       random_on_gpu({T, N}, dtype),
                       random_on_gpu({T, N}, dtype),
                       random_on_gpu({channels}, at::kFloat),
                       random_on_gpu({channels}, at::kFloat)};
  const auto f = [&](const Tensors& in) {
    return ops::selective_scan({in[0], in[1], in[2], in[3], in[4], in[5], in[6]}, layout);
  };
  print_times("scan", sequences, "channels " + std::to_string(channels) + " N " + std::to_string(N), f,
              inputs);
}

TEST_CASE("times of the selective scan on a GPU", "[.bench]") {
  for (const auto& sequences : paper_sequences()) time_selective_scan(sequences, 128, 16, at::kBFloat16);
  time_selective_scan({"64 x 1057", std::vector<int64_t>(64, 1057)}, 128, 16, at::kFloat);
  time_selective_scan({"8 x 4096", std::vector<int64_t>(8, 4096)}, 1536, 16, at::kBFloat16);
}

TEST_CASE("times of the SSD scan on a GPU", "[.bench]") {
  for (const auto& sequences : paper_sequences()) time_ssd(sequences, 8, 16, 32, at::kBFloat16);
  time_ssd({"64 x 1057", std::vector<int64_t>(64, 1057)}, 8, 16, 32, at::kFloat);
  time_ssd({"8 x 4096", std::vector<int64_t>(8, 4096)}, 24, 64, 128, at::kBFloat16);
}

}  // namespace
}  // namespace hax
#endif
