// GPU time of a function alone: it is captured as a graph, which is replayed between two events.
#pragma once

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <vector>

namespace hax::test {

// Median milliseconds.
template <class F>
double gpu_milliseconds(const F& f, int repetitions = 30) {
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  for (int i = 0; i < 3; ++i) f();
  stream.synchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  f();
  graph.capture_end();
  for (int i = 0; i < 5; ++i) graph.replay();
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    begin.record(stream);
    graph.replay();
    end.record(stream);
    stream.synchronize();
    times.push_back(begin.elapsed_time(end));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace hax::test
