#include "lib/model/shape_graphs.h"
#include "lib/ops/cuda/graph_memsets.h"

namespace hax {

ShapeGraphs::ShapeGraphs(c10::cuda::CUDAStream stream)
    : stream_(stream), pool_(at::cuda::graph_pool_handle()) {}

void ShapeGraphs::replay(const ops::cuda::StepShape& shape, const std::function<void()>& warm_up,
                         const std::function<void()>& work) {
  auto& kept = graphs_[{shape.rows, shape.scored_rows}];
  if (!kept) {
    warm_up();
    stream_.synchronize();
    auto graph = std::make_unique<at::cuda::CUDAGraph>(/*keep_graph=*/true);
    graph->capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      graph->capture_end();
      throw;
    }
    graph->capture_end();
    ops::cuda::replace_memsets(graph->raw_cuda_graph());
    graph->instantiate();
    kept = std::move(graph);
  }
  kept->replay();
}

}  // namespace hax
