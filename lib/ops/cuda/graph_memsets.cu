#include "lib/ops/cuda/graph_memsets.h"

#include <stdexcept>
#include <string>
#include <vector>

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr size_t kMostBytes = 4096;

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("CUDA call ") + call + ": " + cudaGetErrorString(status));
}

// Elements of `size` bytes: 1, 2 or 4.
__global__ void __launch_bounds__(kThreads)
    fill_kernel(void* to, size_t count, unsigned size, unsigned value) {
  for (size_t i = threadIdx.x; i < count; i += kThreads) {
    if (size == 4)
      static_cast<unsigned*>(to)[i] = value;
    else if (size == 2)
      static_cast<unsigned short*>(to)[i] = static_cast<unsigned short>(value);
    else
      static_cast<unsigned char*>(to)[i] = static_cast<unsigned char>(value);
  }
}

struct Edges {
  std::vector<cudaGraphNode_t> nodes;
  std::vector<cudaGraphEdgeData> data;
};
// get: cudaGraphNodeGetDependencies or cudaGraphNodeGetDependentNodes.
template <class Get>
Edges edges_of(cudaGraphNode_t node, const Get& get, const char* call) {
  size_t count = 0;
  check(get(node, nullptr, nullptr, &count), call);
  Edges edges{std::vector<cudaGraphNode_t>(count), std::vector<cudaGraphEdgeData>(count)};
  if (count > 0) check(get(node, edges.nodes.data(), edges.data.data(), &count), call);
  return edges;
}

void replace(cudaGraph_t graph, cudaGraphNode_t memset) {
  cudaMemsetParams p{};
  check(cudaGraphMemsetNodeGetParams(memset, &p), "cudaGraphMemsetNodeGetParams");
  if (p.height > 1 || p.width * p.elementSize > kMostBytes) return;
  const Edges before = edges_of(memset, cudaGraphNodeGetDependencies, "cudaGraphNodeGetDependencies"),
              behind = edges_of(memset, cudaGraphNodeGetDependentNodes, "cudaGraphNodeGetDependentNodes");
  void* arguments[] = {&p.dst, &p.width, &p.elementSize, &p.value};
  cudaKernelNodeParams kernel{};
  kernel.func = reinterpret_cast<void*>(fill_kernel);
  kernel.gridDim = dim3(1);
  kernel.blockDim = dim3(kThreads);
  kernel.kernelParams = arguments;
  cudaGraphNode_t node = nullptr;
  check(cudaGraphAddKernelNode(&node, graph, nullptr, 0, &kernel), "cudaGraphAddKernelNode");
  const std::vector<cudaGraphNode_t> to_node(before.nodes.size(), node), from_node(behind.nodes.size(), node);
  check(cudaGraphAddDependencies(graph, before.nodes.data(), to_node.data(), before.data.data(),
                                 before.nodes.size()),
        "cudaGraphAddDependencies");
  check(cudaGraphAddDependencies(graph, from_node.data(), behind.nodes.data(), behind.data.data(),
                                 behind.nodes.size()),
        "cudaGraphAddDependencies");
  check(cudaGraphDestroyNode(memset), "cudaGraphDestroyNode");
  // As urgent as what waits for it.
  cudaLaunchAttributeValue priority{};
  int least = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &priority.priority), "cudaDeviceGetStreamPriorityRange");
  check(cudaGraphKernelNodeSetAttribute(node, cudaLaunchAttributePriority, &priority),
        "cudaGraphKernelNodeSetAttribute");
}

}  // namespace

void replace_memsets(cudaGraph_t graph) {
  size_t count = 0;
  check(cudaGraphGetNodes(graph, nullptr, &count), "cudaGraphGetNodes");
  std::vector<cudaGraphNode_t> nodes(count);
  check(cudaGraphGetNodes(graph, nodes.data(), &count), "cudaGraphGetNodes");
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    check(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
    if (type == cudaGraphNodeTypeMemset) replace(graph, node);
  }
}

}  // namespace hax::ops::cuda
