// The ops of `hax bench` on random inputs: what to run, on which shape, and what it has to do at the least.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/bench/work.h"
#include "lib/config/config.h"
#include "lib/ops/layout.h"

namespace hax {

// Lengths of the sequences of a batch: all full, or as in the paper's joint recall, whose tables have 5..16
// contexts and keys: the share contexts * (1 + 2 keys) / 528 of the longest, 44 % on average.
enum class LengthKind { padded, joint_recall };
std::vector<int64_t> sequence_lengths(LengthKind kind, int64_t batch, int64_t length, uint64_t seed);

struct SequenceShape {
  int64_t batch = 64, length = 1057;
  LengthKind lengths = LengthKind::padded;
};

// The ops' own sizes; defaults are the paper's models at d_model 64.
struct OpSizes {
  int64_t d_inner = 128, d_state = 16;
  int64_t heads = 8, head_dim = 16, groups = 1, chunk = 64;
  int64_t channels = 192, width = 4;
  int64_t d_qk = 16, d_v = 128;
  SparseConfig sparse;  // of attention: one pattern or more
};

// What is timed: forward(inputs, path), and its gradients in all inputs under `upstream`, that of the output.
// Tensors are on the device, random, and the same for the same seed.
struct OpCase {
  std::string op;     // "selective_scan"
  std::string sizes;  // "d_inner 128, d_state 16"
  int64_t tokens = 0;
  std::vector<at::Tensor> inputs;
  std::function<at::Tensor(const std::vector<at::Tensor>&, ops::Path)> forward;
  at::Tensor upstream;  // undefined: forward alone
  Passes work;
};

enum class BenchOp { scan, ssd, conv, attention };
// One case; of attention one for each way of choosing keys first (lsh, key_selection: forward alone).
std::vector<OpCase> op_cases(BenchOp op, const SequenceShape& sequences, const OpSizes& sizes,
                             at::ScalarType dtype, at::Device device, uint64_t seed);

}  // namespace hax
