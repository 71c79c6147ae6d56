// The batched mask against the definition of allowed(i, j), whole and in blocks.
#include "tests/catch.h"
#include "tests/ops/key_sets.h"

namespace hax::test {
namespace {

at::Tensor mask_by_definition(const ops::KeySet& keys, const ops::PackedLayout& layout) {
  at::Tensor mask = at::zeros({layout.batch(), layout.max_seqlen, layout.max_seqlen}, at::kBool);
  auto m = mask.accessor<bool, 3>();
  for (int64_t b = 0; b < layout.batch(); ++b) {
    for (int64_t i = 0; i < layout.seqlen(b); ++i) {
      for (int64_t j = 0; j < layout.seqlen(b); ++j) m[b][i][j] = ops::allowed(keys, layout, b, i, j);
    }
  }
  return mask;
}

TEST_CASE("allowed_mask is allowed, for every membership and pair") {
  const auto layout = layout_of({9, 1, 23, 4});
  for (int64_t width : {1, 3, 50}) {
    for (const auto& [name, keys] : all_key_sets(layout, width, ops::EmptyRow::zero, 5)) {
      CAPTURE(name, width);
      const at::Tensor expected = mask_by_definition(keys, layout);
      CHECK(ops::allowed_mask(keys, layout).equal(expected));
      for (int64_t max_pairs : {1, 60, 1200, 100000}) {
        at::Tensor covered = at::zeros(expected.sizes(), at::kInt);
        for (const auto& block : ops::mask_blocks(layout, max_pairs)) {
          const at::Tensor mask = ops::allowed_mask(keys, layout, block);
          CHECK((mask.numel() <= max_pairs || (block.end_query - block.first_query == 1 &&
                                               block.end_sequence - block.first_sequence == 1)));
          covered.slice(0, block.first_sequence, block.end_sequence)
              .slice(1, block.first_query, block.end_query)
              .slice(2, 0, block.end_query)
              .add_(mask);
        }
        CHECK(covered.equal(expected.to(at::kInt)));
      }
    }
  }
}

TEST_CASE("The positional memberships, by hand") {
  const auto layout = layout_of({6});
  const auto row = [&](const ops::Membership& membership, int64_t i) {
    std::string keys;
    for (int64_t j = 0; j < 6; ++j) {
      if (ops::allowed({{membership}}, layout, 0, i, j)) keys += std::to_string(j);
    }
    return keys;
  };
  CHECK(row(ops::FullMembership{}, 4) == "01234");
  CHECK(row(ops::WindowMembership{2}, 4) == "34");
  CHECK(row(ops::WindowMembership{2}, 0) == "0");
  CHECK(row(ops::SinkMembership{2}, 4) == "01");
  CHECK(row(ops::SinkMembership{2}, 0) == "0");
  CHECK(row(ops::DilatedMembership{3}, 5) == "25");
  CHECK(row(ops::DilatedMembership{3}, 1) == "");
}

}  // namespace
}  // namespace hax::test
