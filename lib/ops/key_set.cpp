#include "lib/ops/key_set.h"

#include <algorithm>

namespace hax::ops {
namespace {

int64_t element(const at::Tensor& tensor, int64_t row) { return tensor.const_data_ptr<int64_t>()[row]; }

// One pair of a membership; `base` is the row of the sequence's first token. j <= i is the caller's.
struct PairTest {
  int64_t base, i, j;

  bool operator()(const FullMembership&) const { return true; }
  bool operator()(const WindowMembership& m) const { return i - j < m.width; }
  bool operator()(const SinkMembership& m) const { return j < m.width; }
  bool operator()(const DilatedMembership& m) const { return j % m.dilation == m.dilation - 1; }
  bool operator()(const LshMembership& m) const {
    const int64_t rank = element(m.rank, base + j), count = element(m.count, base + i);
    return element(m.query_bin, base + i) == element(m.key_bin, base + j) && count - m.width <= rank &&
           rank < count;
  }
  bool operator()(const TopkMembership& m) const { return i < element(m.evicted, base + j); }
};

// The same over a block: i (1, queries, 1), j (1, 1, keys), tensors of the membership (sequences, ...).
struct BlockTest {
  const PackedLayout& layout;
  const MaskBlock& block;
  at::Tensor i, j;

  at::Tensor sequences(const at::Tensor& packed) const {
    return to_padded(packed, layout).slice(0, block.first_sequence, block.end_sequence);
  }
  at::Tensor by_query(const at::Tensor& packed) const {
    return sequences(packed).slice(1, block.first_query, block.end_query).unsqueeze(2);
  }
  at::Tensor by_key(const at::Tensor& packed) const {
    return sequences(packed).slice(1, 0, block.end_query).unsqueeze(1);
  }

  at::Tensor operator()(const FullMembership&) const { return j <= i; }
  at::Tensor operator()(const WindowMembership& m) const { return i - j < m.width; }
  at::Tensor operator()(const SinkMembership& m) const { return j < m.width; }
  at::Tensor operator()(const DilatedMembership& m) const {
    return j.remainder(m.dilation) == m.dilation - 1;
  }
  at::Tensor operator()(const LshMembership& m) const {
    const at::Tensor rank = by_key(m.rank), count = by_query(m.count);
    return (by_query(m.query_bin) == by_key(m.key_bin))
        .logical_and_(rank >= count - m.width)
        .logical_and_(rank < count);
  }
  at::Tensor operator()(const TopkMembership& m) const { return i < by_key(m.evicted); }
};

}  // namespace

std::vector<at::Tensor> tensors(const Membership& membership) {
  if (const auto* lsh = std::get_if<LshMembership>(&membership))
    return {lsh->query_bin, lsh->key_bin, lsh->rank, lsh->count};
  if (const auto* topk = std::get_if<TopkMembership>(&membership)) return {topk->evicted};
  return {};
}

bool allowed(const KeySet& keys, const PackedLayout& layout, int64_t b, int64_t i, int64_t j) {
  if (j > i) return false;
  const PairTest test{layout.offsets[b], i, j};
  return std::any_of(keys.memberships.begin(), keys.memberships.end(),
                     [&](const Membership& membership) { return std::visit(test, membership); });
}

std::vector<MaskBlock> mask_blocks(const PackedLayout& layout, int64_t max_pairs) {
  const int64_t B = layout.batch(), L = layout.max_seqlen;
  const int64_t queries = std::clamp<int64_t>(max_pairs / L, 1, L);
  const int64_t sequences = std::clamp<int64_t>(max_pairs / (queries * L), 1, B);
  std::vector<MaskBlock> blocks;
  for (int64_t b = 0; b < B; b += sequences) {
    for (int64_t i = 0; i < L; i += queries) {
      blocks.push_back({b, std::min(b + sequences, B), i, std::min(i + queries, L)});
    }
  }
  return blocks;
}

at::Tensor allowed_mask(const KeySet& keys, const PackedLayout& layout, const MaskBlock& block) {
  const auto positions = layout.position.options();
  const at::Tensor i = at::arange(block.first_query, block.end_query, positions).view({1, -1, 1});
  const at::Tensor j = at::arange(block.end_query, positions).view({1, 1, -1});
  const at::Tensor lengths =
      layout.cu_seqlens.diff().slice(0, block.first_sequence, block.end_sequence).view({-1, 1, 1});
  const BlockTest test{layout, block, i, j};
  at::Tensor any = at::zeros({block.end_sequence - block.first_sequence, i.size(1), j.size(2)},
                             positions.dtype(at::kBool));
  for (const Membership& membership : keys.memberships) any.logical_or_(std::visit(test, membership));
  // j <= i < length also keeps padded keys out.
  return any.logical_and_(j <= i).logical_and_(i < lengths);
}

at::Tensor allowed_mask(const KeySet& keys, const PackedLayout& layout) {
  return allowed_mask(keys, layout, {0, layout.batch(), 0, layout.max_seqlen});
}

}  // namespace hax::ops
