// Times of sparse attention's CUDA kernels and of what decides its keys, shown on request: test_ops
// "[.bench]".
#ifdef HAX_CUDA
#include <cstdio>

#include "lib/ops/key_scores.h"
#include "lib/ops/key_selection.h"
#include "lib/ops/lsh.h"
#include "lib/ops/sparse_attention.h"
#include "tests/catch.h"
#include "tests/ops/gpu_time.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

at::Tensor random_on_gpu(at::IntArrayRef sizes, at::ScalarType dtype = at::kBFloat16) {
  return at::randn(sizes, at::TensorOptions().device(at::kCUDA)).to(dtype);
}

template <class F>
void print_time(const std::string& name, const F& f) {
  std::printf("%-60s %8.1f us\n", name.c_str(), 1e3 * gpu_milliseconds([&] {
                                                  at::NoGradGuard no_grad;
                                                  f();
                                                }));
}

struct Inputs {
  at::Tensor Q, K, V;
};
void time_attention(const std::string& name, const Inputs& in, const ops::KeySet& keys,
                    const ops::PackedLayout& layout) {
  print_time(name + ", forward", [&] { ops::sparse_attention(in.Q, in.K, in.V, keys, layout); });
  const Tensors leaves{in.Q.detach().requires_grad_(true), in.K.detach().requires_grad_(true),
                       in.V.detach().requires_grad_(true)};
  const at::Tensor upstream = random_on_gpu(in.V.sizes());
  const double both = gpu_milliseconds([&] {
    torch::autograd::grad({ops::sparse_attention(leaves[0], leaves[1], leaves[2], keys, layout)}, leaves,
                          {upstream});
  });
  std::printf("%-60s %8.1f us\n", (name + ", forward + backward").c_str(), 1e3 * both);
}

// Mamba2's branch in the paper: d_qk 32, d_v 128, 32 keys by LSH of 8 bits and 32 by key selection.
void time_branch(const std::string& name, const std::vector<int64_t>& lengths) {
  const auto layout = layout_of(lengths, 0, at::kCUDA);
  const int64_t T = layout.total(), B = layout.batch();
  const Inputs in{random_on_gpu({T, 32}), random_on_gpu({T, 32}) / std::sqrt(32.0), random_on_gpu({T, 128})};
  const at::Tensor R = random_on_gpu({32, 8}, at::kFloat);
  const ops::ScoreMlp mlp{random_on_gpu({64, 64}, at::kFloat), random_on_gpu({64}, at::kFloat),
                          random_on_gpu({64, 64}, at::kFloat), random_on_gpu({64}, at::kFloat),
                          random_on_gpu({1, 64}, at::kFloat),  random_on_gpu({1}, at::kFloat)};
  const auto hash = [&](ops::HashStatistics statistics) {
    return ops::lsh(in.K, in.Q, R, {statistics, true, 256}, 32, layout).membership;
  };
  print_time(name + ", LSH, running mean", [&] { hash(ops::HashStatistics::running_mean); });
  print_time(name + ", LSH, whole sequence", [&] { hash(ops::HashStatistics::whole_sequence); });
  print_time(name + ", summary", [&] { ops::query_summary_causal(in.Q, layout); });
  print_time(name + ", the paper's summary", [&] { ops::query_summary_paper(in.Q, layout); });
  const at::Tensor summary = ops::query_summary_causal(in.Q, layout);
  print_time(name + ", scores", [&] { ops::key_scores(in.K, summary, mlp, layout); });
  const at::Tensor scores = random_on_gpu({T}, at::kFloat);
  print_time(name + ", top-k", [&] { ops::cumulative_topk(scores, 32, layout); });
  const at::Tensor sampled =
      (at::rand({B, 32}, scores.options()) * layout.cu_seqlens.diff().unsqueeze(1)).to(at::kLong);
  const at::Tensor pads = at::zeros_like(layout.cu_seqlens.diff());
  print_time(name + ", targets",
             [&] { ops::ranking_targets(in.Q, in.K, sampled, pads, layout, at::kFloat); });
  const auto lsh = hash(ops::HashStatistics::running_mean);
  const auto topk = ops::cumulative_topk(scores, 32, layout);
  time_attention(name + ", LSH + key selection", in, {{lsh, topk}}, layout);
  time_attention(name + ", LSH", in, {{lsh}}, layout);
  time_attention(name + ", key selection", in, {{topk}}, layout);
  time_attention(name + ", window", in, {{ops::WindowMembership{64}}}, layout);
  time_attention(name + ", full", in, {{ops::FullMembership{}}}, layout);
}

TEST_CASE("times of sparse attention on a GPU", "[.bench]") {
  // 64 sequences of 5 .. 1057 tokens, 464 on average, like joint recall's.
  std::vector<int64_t> ragged = random_lengths(63, 905, 3);
  for (auto& length : ragged) length += 4;
  ragged.push_back(1057);
  time_branch("64 ragged", ragged);
  time_branch("64 x 1057", std::vector<int64_t>(64, 1057));
  time_branch("1 x 16384", {16384});
}

}  // namespace
}  // namespace hax::test
#endif
