#ifdef HAX_CUDA
#include "lib/ops/cuda/graph_memsets.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <vector>

#include "lib/ops/torch.h"
#include "tests/catch.h"

namespace hax {
namespace {

std::vector<cudaGraphNodeType> types_of(cudaGraph_t graph) {
  size_t count = 0;
  REQUIRE(cudaGraphGetNodes(graph, nullptr, &count) == cudaSuccess);
  std::vector<cudaGraphNode_t> nodes(count);
  REQUIRE(cudaGraphGetNodes(graph, nodes.data(), &count) == cudaSuccess);
  std::vector<cudaGraphNodeType> types(count);
  for (size_t i = 0; i < count; ++i) REQUIRE(cudaGraphNodeGetType(nodes[i], &types[i]) == cudaSuccess);
  return types;
}

TEST_CASE("Memsets of a captured graph become kernels in the same place", "[gpu]") {
  const auto stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false);
  const c10::cuda::CUDAStreamGuard guard(stream);
  const auto ints = at::TensorOptions(at::kCUDA).dtype(at::kInt);
  const at::Tensor words = at::full({7}, 5, ints), seen = at::zeros({7}, ints);
  const at::Tensor bytes = at::full({301}, 5, ints.dtype(at::kByte)), large = at::full({5000}, 5, ints);
  const at::Tensor halves = at::full({9}, 5, ints.dtype(at::kShort));
  at::cuda::CUDAGraph graph(/*keep_graph=*/true);
  graph.capture_begin();
  // What reads the words between two memsets shows that their order holds.
  words.add_(1);
  REQUIRE(cudaMemsetAsync(words.data_ptr(), 0, 7 * sizeof(int), stream) == cudaSuccess);
  seen.add_(words).add_(1);
  REQUIRE(cudaMemsetAsync(words.data_ptr(), 0x01, 3 * sizeof(int), stream) == cudaSuccess);
  REQUIRE(cudaMemsetAsync(static_cast<char*>(bytes.data_ptr()) + 1, 0xab, 299, stream) == cudaSuccess);
  REQUIRE(cudaMemsetAsync(static_cast<char*>(halves.data_ptr()) + 2, 0x02, 14, stream) == cudaSuccess);
  REQUIRE(cudaMemsetAsync(large.data_ptr(), 0, 5000 * sizeof(int), stream) == cudaSuccess);
  graph.capture_end();
  const auto memsets = [&] {
    const auto types = types_of(graph.raw_cuda_graph());
    return std::count(types.begin(), types.end(), cudaGraphNodeTypeMemset);
  };
  REQUIRE(memsets() == 5);
  ops::cuda::replace_memsets(graph.raw_cuda_graph());
  CHECK(memsets() == 1);  // the one above 4 KiB
  graph.instantiate();
  for (int times = 1; times <= 3; ++times) {
    graph.replay();
    CHECK(seen.eq(times).all().item<bool>());
    CHECK(words.narrow(0, 0, 3).eq(0x01010101).all().item<bool>());
    CHECK(words.narrow(0, 3, 4).eq(0).all().item<bool>());
    CHECK(bytes.narrow(0, 1, 299).eq(0xab).all().item<bool>());
    CHECK((bytes[0].item<int>() == 5 && bytes[300].item<int>() == 5));
    CHECK(halves.narrow(0, 1, 7).eq(0x0202).all().item<bool>());
    CHECK((halves[0].item<int>() == 5 && halves[8].item<int>() == 5));
    CHECK(large.eq(0).all().item<bool>());
  }
}

}  // namespace
}  // namespace hax
#endif
