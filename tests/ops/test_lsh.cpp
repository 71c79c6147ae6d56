// Centring, bins, ranks and counts: kernel, composite and reference, and the definitions they stand for.
#include "lib/ops/lsh.h"
#include "tests/catch.h"
#include "tests/ops/key_sets.h"

namespace hax::test {
namespace {

using ops::Path;

TEST_CASE("statistics over the sequence keep bf16 as bf16, those of the running mean do not") {
  const auto layout = test::layout_of({40, 7}, 64);
  const at::Tensor x = test::random_normal({47, 5}, 1, at::kBFloat16);
  const at::Tensor centred = ops::centre_over_sequence(x, layout);
  CHECK(centred.scalar_type() == at::kBFloat16);
  CHECK(relative_error(centred, ops::centre_over_sequence(x.to(at::kDouble), layout)) <= 1.5e-2);
  CHECK(ops::centre_by_running_mean(x, layout).scalar_type() == at::kFloat);
}

TEST_CASE("Centring over the padded sequence in closed form is centring of the padded tensor") {
  for (const auto& layout : {layout_of({1, 5, 12}, 20), layout_of({12, 5}), layout_of({1})}) {
    const at::Tensor x = random_normal({layout.total(), 6}, 1) + 0.3;
    const at::Tensor exact = ops::centre_over_sequence(x, layout, Path::reference);
    CHECK(relative_error(ops::centre_over_sequence(x, layout), exact) <= 1e-13);
    CHECK(relative_error(ops::centre_over_sequence(x.to(at::kFloat), layout), exact) <= 2e-6);
  }
}

TEST_CASE("Centring by the running mean: kernel, composite and reference") {
  const auto layout = layout_of({1, 5, 70, 33});
  const at::Tensor x = random_normal({layout.total(), 11}, 2) + 0.3;
  const at::Tensor exact = ops::centre_by_running_mean(x, layout, Path::reference);
  CHECK(relative_error(ops::centre_by_running_mean(x, layout), exact) <= 1e-13);
  const at::Tensor narrow = x.to(at::kFloat);
  CHECK(relative_error(ops::centre_by_running_mean(narrow, layout), exact) <= 2e-6);
  CHECK(relative_error(ops::centre_by_running_mean(narrow, layout, Path::composite), exact) <= 2e-6);
  const at::Tensor strided = at::cat({narrow, narrow}, 1).slice(1, 0, 11);
  CHECK(bitwise_equal(ops::centre_by_running_mean(strided, layout),
                      ops::centre_by_running_mean(narrow, layout)));
  // The first token of a sequence is its own mean.
  CHECK(ops::centre_by_running_mean(narrow, layout)[1].abs().max().item<float>() == 0.0f);
}

TEST_CASE("Bins") {
  const at::Tensor projection =
      at::tensor({1.0f, -1.0f, 0.0f, 2.0f, -1.0f, -2.0f, 3.0f, 3.0f, 2.5f}).view({3, 3});
  CHECK(ops::sign_bins(projection).equal(at::tensor({int64_t{1}, int64_t{1}, int64_t{7}})));
  CHECK(ops::argmax_bins(projection).equal(at::tensor({int64_t{0}, int64_t{0}, int64_t{0}})));
  CHECK(ops::argmax_bins(-projection).equal(at::tensor({int64_t{1}, int64_t{2}, int64_t{2}})));
  CHECK(ops::argmax_bins(at::zeros({2, 4})).equal(at::zeros({2}, at::kLong)));
  const at::Tensor random = random_normal({5000, 9}, 3, at::kFloat);
  CHECK(ops::sign_bins(random).equal(ops::sign_bins(random, Path::composite)));
  CHECK_THROWS_AS(ops::sign_bins(at::zeros({1, 31})), std::invalid_argument);
}

TEST_CASE("Ranks and counts: kernel, composite and reference") {
  for (int64_t n_bins : {1, 3, 1000}) {
    const auto layout = layout_of({1, 2, 30, 17});
    const at::Tensor query_bin = random_below(n_bins, {layout.total()}, 4);
    const at::Tensor key_bin = random_below(n_bins, {layout.total()}, 5);
    const auto exact = ops::lsh_membership(query_bin, key_bin, n_bins, 4, layout, Path::reference);
    for (Path path : {Path::automatic, Path::composite}) {
      const auto membership = ops::lsh_membership(query_bin, key_bin, n_bins, 4, layout, path);
      CHECK(membership.rank.equal(exact.rank));
      CHECK(membership.count.equal(exact.count));
    }
  }
}

TEST_CASE("A query sees the nearest keys of its bin") {
  const auto layout = layout_of({40, 25});
  const at::Tensor query_bin = random_below(3, {layout.total()}, 6),
                   key_bin = random_below(3, {layout.total()}, 7);
  const int64_t* q = query_bin.data_ptr<int64_t>();
  const int64_t* k = key_bin.data_ptr<int64_t>();
  for (int64_t width : {1, 4, 100}) {
    const ops::KeySet keys{{ops::lsh_membership(query_bin, key_bin, 3, width, layout)}};
    for (int64_t b = 0; b < layout.batch(); ++b) {
      for (int64_t i = 0; i < layout.seqlen(b); ++i) {
        int64_t taken = 0;
        for (int64_t j = i; j >= 0; --j) {
          const bool expected = q[layout.offsets[b] + i] == k[layout.offsets[b] + j] && taken < width;
          taken += expected;
          CHECK(ops::allowed(keys, layout, b, i, j) == expected);
        }
      }
    }
  }
}

TEST_CASE("Hashing on a GPU is hashing on the CPU", "[gpu]") {
  const auto lengths = random_lengths(9, 300, 8);
  const auto layout = layout_of(lengths, 310), device_layout = layout_of(lengths, 310, at::kCUDA);
  const at::Tensor x = random_normal({layout.total(), 16}, 9, at::kFloat), device_x = x.to(at::kCUDA);
  CHECK(relative_error(ops::centre_over_sequence(device_x, device_layout),
                       ops::centre_over_sequence(x, layout)) <= 3e-6);
  CHECK(relative_error(ops::centre_by_running_mean(device_x, device_layout),
                       ops::centre_by_running_mean(x, layout)) <= 3e-6);
  CHECK(ops::sign_bins(device_x).cpu().equal(ops::sign_bins(x)));
  CHECK(ops::argmax_bins(device_x).cpu().equal(ops::argmax_bins(x)));
  const at::Tensor query_bin = random_below(16, {layout.total()}, 10),
                   key_bin = random_below(16, {layout.total()}, 11);
  const auto cpu = ops::lsh_membership(query_bin, key_bin, 16, 4, layout);
  const auto gpu = ops::lsh_membership(query_bin.to(at::kCUDA), key_bin.to(at::kCUDA), 16, 4, device_layout);
  CHECK(gpu.rank.cpu().equal(cpu.rank));
  CHECK(gpu.count.cpu().equal(cpu.count));
}

double share_equal(const at::Tensor& a, const at::Tensor& b) {
  return a.eq(b).to(at::kDouble).mean().item<double>();
}

// The kernel's bins are the composite's but for rounding, its ranks and counts those of its bins.
TEST_CASE("Hashes of every statistics by one kernel on a GPU are those of the composite", "[gpu]") {
  using ops::HashStatistics;
  // The longest does without the comparison of all pairs.
  for (const auto& layout :
       {layout_of({1, 300, 64, 65, 2, 129}, 310, at::kCUDA), layout_of({1, 4200, 130}, 4300, at::kCUDA)}) {
    const at::Tensor R = random_normal({16, 8}, 20, at::kFloat);
    const auto input = [&](uint32_t seed, at::ScalarType dtype) {
      return (random_normal({layout.total(), 40}, seed) + 0.4).to(at::kCUDA, dtype).slice(1, 8, 24);
    };
    for (const auto& [dtype, least] : {std::pair{at::kFloat, 0.9995}, std::pair{at::kBFloat16, 0.99}}) {
      const at::Tensor K = input(21, dtype), Q = input(22, dtype);
      for (auto statistics :
           {HashStatistics::none, HashStatistics::running_mean, HashStatistics::whole_sequence}) {
        for (bool sign : {true, false}) {
          CAPTURE(at::toString(dtype), static_cast<int>(statistics), sign);
          const ops::HashFunction hash{statistics, sign, sign ? 256 : 8};
          const auto kernel = ops::lsh(K, Q, R, hash, 5, layout).membership;
          const auto composite = ops::lsh(K, Q, R, hash, 5, layout, Path::composite).membership;
          CHECK(share_equal(kernel.key_bin, composite.key_bin) >= least);
          CHECK(share_equal(kernel.query_bin, composite.query_bin) >= least);
          const auto counted =
              ops::lsh_membership(kernel.query_bin, kernel.key_bin, hash.n_bins, 5, layout, Path::composite);
          CHECK(kernel.rank.equal(counted.rank));
          CHECK(kernel.count.equal(counted.count));
        }
      }
    }
  }
}

}  // namespace
}  // namespace hax::test
