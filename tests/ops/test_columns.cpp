#include "lib/ops/columns.h"

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::Columns;
using test::random_normal;

TEST_CASE("columns split and come together again") {
  const std::vector<Columns> pieces{{4, 4}, {0, 3}, {9, 2}};
  at::Tensor rows = random_normal({5, 12}, 1).requires_grad_(true);
  const auto split = ops::split_columns(rows, pieces);
  REQUIRE(split.size() == 3);
  at::Tensor loss = at::zeros({}, at::kDouble), expected = at::zeros({5, 12}, at::kDouble);
  for (size_t i = 0; i < pieces.size(); ++i) {
    CHECK(split[i].equal(rows.narrow(1, pieces[i].begin, pieces[i].count)));
    if (i == 2) continue;  // no gradient reaches it
    const at::Tensor weight = random_normal(split[i].sizes(), 10 + static_cast<uint32_t>(i));
    loss = loss + (split[i] * weight).sum();
    expected.narrow(1, pieces[i].begin, pieces[i].count).copy_(weight);
  }
  loss.backward();
  CHECK(rows.grad().equal(expected));
}

TEST_CASE("gradients of slices share a buffer where their slices share rows") {
  const at::Tensor rows = at::zeros({6, 16}), other = at::zeros({6, 12});
  ops::ColumnGradients gradients;
  const at::Tensor a = gradients.like(rows.narrow(1, 0, 4)), b = gradients.like(rows.narrow(1, 8, 8)),
                   c = gradients.like(other.narrow(1, 4, 4)), d = gradients.like(other),
                   odd = gradients.like(rows.narrow(1, 3, 4));
  CHECK(a.storage().data() == b.storage().data());
  CHECK(b.storage_offset() == 8);
  CHECK(b.sizes() == at::IntArrayRef({6, 8}));
  CHECK(c.storage().data() != a.storage().data());
  CHECK(c.stride(0) == 12);
  CHECK(d.is_contiguous());
  CHECK(odd.is_contiguous());
}

TEST_CASE("a gathered gradient takes over a buffer that nobody else sees, and no other") {
  const std::vector<Columns> pieces{{0, 4}, {4, 4}, {12, 2}};
  const auto gather = [&](const std::vector<at::Tensor>& parts, Columns left_out = {8, 4}) {
    return ops::gathered_gradient(3, 16, pieces, parts, left_out, at::TensorOptions(at::kFloat));
  };
  const at::Tensor values = random_normal({3, 16}, 5, at::kFloat);
  const auto check = [&](const at::Tensor& found) {
    CHECK(found.narrow(1, 0, 4).equal(values.narrow(1, 0, 4)));
    CHECK(found.narrow(1, 4, 4).equal(values.narrow(1, 4, 4)));
    CHECK(found.narrow(1, 12, 2).eq(0).all().item<bool>());
    CHECK(found.narrow(1, 14, 2).eq(0).all().item<bool>());
  };
  const at::Tensor second = values.narrow(1, 4, 4).contiguous();
  {
    at::Tensor first = ops::detached_columns(values.clone(), {0, 4});
    const void* place = first.data_ptr();
    const at::Tensor found = gather({first, second, {}});
    CHECK(found.data_ptr() == place);
    check(found);
  }
  {
    // Two slices of one buffer, and nothing else.
    at::Tensor buffer = values.clone();
    const void* place = buffer.data_ptr();
    const at::Tensor first = ops::detached_columns(buffer, {0, 4}),
                     both = ops::detached_columns(buffer, {4, 4});
    buffer.reset();
    const at::Tensor found = gather({first, both, {}});
    CHECK(found.data_ptr() == place);
    check(found);
  }
  {
    const at::Tensor seen = values.clone();
    const at::Tensor found = gather({seen.narrow(1, 0, 4), second, {}});
    CHECK(found.data_ptr() != seen.data_ptr());
    check(found);
    CHECK(seen.equal(values));
  }
  check(gather({values.narrow(1, 0, 4), second, {}}, {0, 0}));
  CHECK(gather({{}, {}, {}}, {0, 0}).eq(0).all().item<bool>());
}

TEST_CASE("slices outside the rows are refused") {
  CHECK_THROWS_AS(ops::split_columns(at::zeros({2, 4}), {{2, 3}}), std::invalid_argument);
}

}  // namespace
}  // namespace hax
