#include "lib/ops/fallback.h"

#include "lib/ops/causal_conv1d.h"
#include "lib/ops/sparse_attention.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"
#include "tests/stderr.h"

namespace hax {
namespace {

using ops::FallbackWatch;
using ops::Path;
using Seen = std::set<std::string>;
using test::contains;

void convolve(int64_t width, at::ScalarType dtype, at::Device device, Path path = Path::automatic) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  ops::causal_conv1d(at::ones({5, 8}, options), at::ones({8, width}, options), at::ones({8}, options),
                     test::layout_of({2, 3}, 0, device.type()), path);
}

TEST_CASE("a refusal names what was found and what would do") {
  CHECK(ops::above("d_v", 512, 256) == "d_v 512 is above 256");
  CHECK(ops::above("d_v", 256, 256).empty());
  CHECK(ops::other_dtype("Q", at::kDouble, {at::kFloat, at::kBFloat16}) ==
        "Q is Double, not Float or BFloat16");
  CHECK(ops::other_dtype("Q", at::kBFloat16, {at::kFloat, at::kBFloat16}).empty());
  CHECK(ops::first_refusal({"", "b", "c"}) == "b");
  CHECK(ops::first_refusal({"", ""}).empty());
}

TEST_CASE("a fallback on a GPU is told once for each op and reason") {
  const at::Device gpu(at::kCUDA);
  const std::string said = test::stderr_of([&] {
    for (int i = 0; i < 3; ++i) {
      ops::note_fallback("some_op", gpu, "width 9 is above 4");
      ops::note_fallback("some_op", gpu, "the input is Double, not Float");
      ops::note_fallback("some_op", at::kCPU, "width 5 is above 4");
    }
  });
  const std::string first = "info: some_op: width 9 is above 4, so its composite path runs (slower)\n";
  REQUIRE(contains(said, first));
  CHECK(said.find("width 9") == said.rfind("width 9"));
  CHECK(contains(said, "info: some_op: the input is Double, not Float, so its"));
  CHECK(std::count(said.begin(), said.end(), '\n') == 2);
}

TEST_CASE("a watch sees what falls back while it lives, on a CPU too, and nothing that was asked for") {
  const FallbackWatch before;
  {
    const FallbackWatch watch;
    convolve(4, at::kFloat, at::kCPU);
    convolve(5, at::kFloat, at::kCPU, Path::composite);
    convolve(5, at::kFloat, at::kCPU, Path::reference);
    CHECK(watch.seen().empty());
    convolve(5, at::kFloat, at::kCPU);
    convolve(4, at::kDouble, at::kCPU);
    CHECK(watch.seen() ==
          Seen{"causal_conv1d: the input is Double, not Float", "causal_conv1d: width 5 is above 4"});
  }
  const FallbackWatch after;
  CHECK(after.seen().empty());
  CHECK(before.seen().size() == 2);
}

TEST_CASE("a GPU's fused kernels say what they refuse, once", "[gpu]") {
  const at::Device gpu(at::kCUDA);
  const auto attend = [&](int64_t d_v, Path path) {
    const at::Tensor Q = at::ones({5, 16}, at::TensorOptions().dtype(at::kBFloat16).device(gpu));
    const at::Tensor V = at::ones({5, d_v}, Q.options());
    const ops::KeySet keys{{ops::FullMembership{}}, ops::EmptyRow::zero};
    ops::sparse_attention(Q, Q, V, keys, test::layout_of({2, 3}, 0, at::kCUDA), path);
  };
  const FallbackWatch watch;
  const std::string said = test::stderr_of([&] {
    attend(1024, Path::composite);
    convolve(9, at::kFloat, gpu, Path::composite);
  });
  CHECK(said.empty());
  CHECK(watch.seen().empty());
  const std::string told = test::stderr_of([&] {
    attend(128, Path::automatic);
    attend(1004, Path::automatic);
    attend(1004, Path::automatic);
    convolve(9, at::kFloat, gpu);
    convolve(9, at::kFloat, gpu);
  });
  CHECK(watch.seen() ==
        Seen{"causal_conv1d: width 9 is above 4", "sparse_attention: d_v 1004 is not a multiple of 8"});
  CHECK(std::count(told.begin(), told.end(), '\n') == 2);
  CHECK(contains(told, "sparse_attention: d_v 1004 is not a multiple of 8, so its composite path runs"));
}

}  // namespace
}  // namespace hax
