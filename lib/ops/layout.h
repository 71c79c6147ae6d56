// How packed sequences lie in a tensor of T tokens, and where an op's fast path may be replaced.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "lib/ops/torch.h"

namespace hax::ops {

// Which implementation an op uses. `automatic` is the dispatch point: the fused CPU kernel for fp32 on a
// CPU, the composite of batched tensor operations elsewhere. The other two exist for tests and benchmarks.
enum class Path { automatic, composite, reference };

// Sequence b is rows offsets[b] .. offsets[b + 1) of every (T, ...) tensor. Every sequence has a token.
struct PackedLayout {
  std::vector<int64_t> offsets;  // (B + 1), host
  at::Tensor cu_seqlens;         // (B + 1) int64, device
  at::Tensor seq_id;             // (T) int64: sequence of each token
  at::Tensor position;           // (T) int64: position inside its sequence
  int64_t max_seqlen = 0;
  int64_t padded_length = 0;  // the length that `paper` statistics count over, >= max_seqlen
  // Lengths are known to the device alone: `offsets` says how many sequences and how many rows there is room
  // for, and the rows behind cu_seqlens' last are not in use. Only fused kernels take such a layout.
  bool device_lengths = false;

  int64_t batch() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t total() const { return offsets.back(); }
  int64_t seqlen(int64_t b) const { return offsets[b + 1] - offsets[b]; }
};

// An op met a layout of device lengths that it has no fused kernel for.
struct NeedsHostLengths : std::logic_error {
  using std::logic_error::logic_error;
};

// padded_length 0 means the longest sequence. Throws std::invalid_argument on an empty or unordered list.
PackedLayout make_layout(const std::vector<int64_t>& offsets, int64_t padded_length, at::Device device);

// A layout of device lengths over tensors that are filled elsewhere: cu_seqlens (B + 1), seq_id and position
// (T).
PackedLayout device_layout(const at::Tensor& cu_seqlens, const at::Tensor& seq_id, const at::Tensor& position,
                           int64_t max_seqlen, int64_t padded_length);

// (T, ...) -> (B, max_seqlen, ...) with zeros at padded places, and back. Differentiable.
// Throw NeedsHostLengths for a layout of device lengths.
at::Tensor to_padded(const at::Tensor& packed, const PackedLayout& layout);
at::Tensor to_packed(const at::Tensor& padded, const PackedLayout& layout);

}  // namespace hax::ops
