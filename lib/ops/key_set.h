// Which keys a query may attend to: a union of memberships with one meaning, allowed(i, j).
// Patterns make memberships, sparse_attention reads them; neither knows the other (spec section 3).
//
// Positions i (query) and j (key) count from the start of a sequence; allowed implies j <= i.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "lib/ops/layout.h"

namespace hax::ops {

// Every j <= i.
struct FullMembership {};
// i - j < width.
struct WindowMembership {
  int64_t width;
};
// j < width.
struct SinkMembership {
  int64_t width;
};
// j = dilation - 1 (mod dilation).
struct DilatedMembership {
  int64_t dilation;
};
// The `width` nearest keys at positions <= i whose bin equals the query's. With rank_j the number of keys
// before j in j's bin, and count_i the number of keys at positions <= i in the query's bin, allowed iff
// bins are equal and count_i - width <= rank_j < count_i.
struct LshMembership {
  at::Tensor query_bin;  // (T) int64, >= 0
  at::Tensor key_bin;    // (T) int64, >= 0
  at::Tensor rank;       // (T) int64
  at::Tensor count;      // (T) int64
  int64_t width;
  int64_t bins;  // every bin is below
};
// Key j is among the running top-k from its own position until position evicted_j:
// allowed iff j <= i < evicted_j. A key that is never chosen has j, one that stays the sequence's length.
struct TopkMembership {
  at::Tensor evicted;  // (T) int64
};

using Membership = std::variant<FullMembership, WindowMembership, SinkMembership, DilatedMembership,
                                LshMembership, TopkMembership>;

// What a query without any allowed key gets: `paper` attends uniformly to all padded_length positions of its
// sequence, future and PAD (V = 0) included; `causal` gets a zero vector. The official code reaches the
// uniform row by adding a huge negative number to every score, so its gradient is that of a softmax: Q and K
// get one too.
enum class EmptyRow { zero, uniform };

// What it holds on the device.
std::vector<at::Tensor> tensors(const Membership& membership);

struct KeySet {
  std::vector<Membership> memberships;  // union; empty: nothing is allowed
  EmptyRow empty_row = EmptyRow::zero;
};

// The definition, for one pair of positions of sequence b. The memberships' tensors lie on the CPU.
bool allowed(const KeySet& keys, const PackedLayout& layout, int64_t b, int64_t i, int64_t j);

// A block of the mask: sequences [first_sequence, end_sequence), queries [first_query, end_query) of each,
// and the keys that they can see, [0, end_query).
struct MaskBlock {
  int64_t first_sequence, end_sequence, first_query, end_query;
};
// Blocks that cover all pairs and hold at most max_pairs each, or one query of one sequence.
std::vector<MaskBlock> mask_blocks(const PackedLayout& layout, int64_t max_pairs);

// allowed over a block, (sequences, queries, keys) bool; false in padded rows and columns.
at::Tensor allowed_mask(const KeySet& keys, const PackedLayout& layout, const MaskBlock& block);
// (B, max_seqlen, max_seqlen) bool, query by key.
at::Tensor allowed_mask(const KeySet& keys, const PackedLayout& layout);

}  // namespace hax::ops
