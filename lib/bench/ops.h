// The table of `hax bench scan|ssd|conv|attention`: fused kernels beside their composite paths, against what
// this machine copies and multiplies.
#pragma once

#include "lib/bench/op_case.h"
#include "lib/bench/timing.h"
#include "lib/eval/table.h"

namespace hax {

// What the device reaches, measured here and now: a copy (1 GiB on a GPU, 128 MiB on a CPU; bytes read and
// written count; by a kernel that changes the sign, which is faster than a GPU's copy engine) and a product
// of square matrices (8192 in bf16 on a GPU, 2048 in fp32 on a CPU).
struct Ceilings {
  Timing copy, product;
  double copied_bytes = 0.0, product_flops = 0.0;
  double bytes_per_second() const;  // of the median run
  double flops_per_second() const;
};
Ceilings measure_ceilings(at::Device device, const TimingOptions& options);

struct OpBench {
  BenchOp op = BenchOp::scan;
  std::vector<SequenceShape> sequences;
  OpSizes sizes;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  TimingOptions timing;
  bool composite = true;  // time the composite path too
  uint64_t seed = 1;
};

// One row for each shape, case and pass (forward, forward+backward), after two for the ceilings. A path that
// cannot be timed (the fused kernel refuses the shape, memory runs out) has blanks and a reason under "note".
Table bench_ops(const OpBench& bench);

}  // namespace hax
