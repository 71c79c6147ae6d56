// Philox by the vectors published with Random123 (kat_vectors), streams by their definition, and the
// distributions by statistics whose bounds a correct generator meets with these fixed seeds.
#include "lib/base/random.h"

#include <cmath>
#include <set>
#include <stdexcept>
#include <vector>

#include "tests/catch.h"

namespace hax {
namespace {

using Block = std::array<uint32_t, 4>;

RandomStream stream_of(uint32_t index) { return RandomStream({.seed = 20260101, .index = index}); }

TEST_CASE("philox4x32-10 gives the published vectors") {
  CHECK(philox4x32_10({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32_10({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream is Philox at its counter, word by word") {
  const StreamKey key{.seed = 0x0123456789abcdef,
                      .purpose = Purpose::hash_matrix,
                      .layer = 0xabcdef,
                      .step = 0x11223344,
                      .index = 0x55667788};
  RandomStream stream(key);
  for (uint32_t w = 0; w < 41; ++w) {
    const Block block =
        philox4x32_10({w / 4, 0x55667788, 0x11223344, 4u | 0xabcdefu << 8}, {0x89abcdef, 0x01234567});
    CAPTURE(w);
    CHECK(stream.next() == block[w % 4]);
  }
}

TEST_CASE("every part of the key changes the stream") {
  const StreamKey base{.seed = 7, .purpose = Purpose::example, .layer = 1, .step = 2, .index = 3};
  std::vector<StreamKey> keys(7, base);
  keys[1].seed ^= 1;
  keys[2].seed ^= uint64_t{1} << 63;
  keys[3].purpose = Purpose::shuffle;
  keys[4].layer ^= 1u << 23;
  keys[5].step ^= 1u << 31;
  keys[6].index ^= 1u << 31;
  std::set<Block> seen;
  for (const StreamKey& key : keys) {
    RandomStream stream(key);
    seen.insert({stream.next(), stream.next(), stream.next(), stream.next()});
  }
  CHECK(seen.size() == keys.size());
}

TEST_CASE("purposes keep their numbers, which files depend on") {
  CHECK(static_cast<int>(Purpose::example) == 1);
  CHECK(static_cast<int>(Purpose::shuffle) == 2);
  CHECK(static_cast<int>(Purpose::init) == 3);
  CHECK(static_cast<int>(Purpose::hash_matrix) == 4);
  CHECK(static_cast<int>(Purpose::eval_hash_matrix) == 5);
  CHECK(static_cast<int>(Purpose::ranking_sample) == 6);
  CHECK(static_cast<int>(Purpose::stream_example) == 7);
}

TEST_CASE("a layer of 2^24 is refused") {
  CHECK_NOTHROW(RandomStream({.layer = (1u << 24) - 1}));
  CHECK_THROWS_AS(RandomStream({.layer = 1u << 24}), std::invalid_argument);
}

TEST_CASE("below is uniform by chi-square") {
  for (const uint32_t bound : {2u, 3u, 10u, 100u, 1000u}) {
    RandomStream stream = stream_of(bound);
    const int draws_a_value = 1000;
    std::vector<int> counts(bound);
    for (uint32_t i = 0; i < bound * draws_a_value; ++i) {
      const uint32_t value = stream.below(bound);
      REQUIRE(value < bound);
      ++counts[value];
    }
    double chi_square = 0;
    for (const int count : counts) chi_square += std::pow(count - draws_a_value, 2) / draws_a_value;
    const double z = (chi_square - (bound - 1)) / std::sqrt(2.0 * (bound - 1));
    CAPTURE(bound, chi_square);
    CHECK(std::abs(z) < 3);
  }
}

// Without rejection 3 * 2^30 would hand its lowest third out twice as often as the rest.
TEST_CASE("below has no bias for a bound that does not divide 2^32") {
  RandomStream stream = stream_of(1);
  const uint32_t bound = 3u << 30;
  const int n = 90000;
  std::array<int, 3> residues{};
  for (int i = 0; i < n; ++i) ++residues[stream.below(bound) % 3];
  for (const int count : residues) CHECK(std::abs(count - n / 3) < 4 * std::sqrt(n * 2.0 / 9));
}

TEST_CASE("below takes one word when none is rejected, and 1 leaves one choice") {
  RandomStream words = stream_of(2);
  RandomStream halves = stream_of(2);
  for (int i = 0; i < 100; ++i) CHECK(halves.below(1u << 31) == words.next() >> 1);
  CHECK(halves.below(1) == 0);
  CHECK_THROWS_AS(halves.below(0), std::invalid_argument);
}

TEST_CASE("uniform is the documented function of two words, inside (0, 1)") {
  RandomStream words = stream_of(3);
  RandomStream stream = stream_of(3);
  const int n = 200000;
  double sum = 0, squares = 0, lowest = 1, highest = 0;
  for (int i = 0; i < n; ++i) {
    const uint64_t high = words.next();
    const uint64_t bits = (high << 32 | words.next()) >> 12;
    const double u = stream.uniform();
    REQUIRE(u == (2.0 * static_cast<double>(bits) + 1) / 0x1p53);
    REQUIRE(u > 0);
    REQUIRE(u < 1);
    sum += u;
    squares += u * u;
    lowest = std::min(lowest, u);
    highest = std::max(highest, u);
  }
  CHECK(std::abs(sum / n - 0.5) < 4 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(squares / n - 1.0 / 3) < 4 * std::sqrt(4.0 / 45 / n));
  CHECK(lowest < 1e-4);
  CHECK(highest > 1 - 1e-4);
  // The extremes, which no test would draw.
  CHECK((0.0 + 0.5) * 0x1p-52 > 0);
  CHECK((0x1p52 - 1 + 0.5) * 0x1p-52 < 1);
}

TEST_CASE("normal has a normal's moments and tails and takes four words") {
  RandomStream stream = stream_of(4);
  const int n = 400000;
  double moments[5] = {};
  int beyond_two = 0;
  for (int i = 0; i < n; ++i) {
    const double x = stream.normal();
    double power = 1;
    for (double& moment : moments) {
      moment += power / n;
      power *= x;
    }
    beyond_two += std::abs(x) > 2;
  }
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::abs(moments[1]) < 4 / root);
  CHECK(std::abs(moments[2] - 1) < 4 * std::sqrt(2.0) / root);
  CHECK(std::abs(moments[3]) < 4 * std::sqrt(15.0) / root);
  CHECK(std::abs(moments[4] - 3) < 4 * std::sqrt(96.0) / root);
  const double p = std::erfc(2 / std::sqrt(2.0));
  CHECK(std::abs(beyond_two - n * p) < 4 * std::sqrt(n * p * (1 - p)));

  RandomStream words = stream_of(4);
  for (int i = 0; i < 4 * n; ++i) words.next();
  CHECK(stream.next() == words.next());
}

}  // namespace
}  // namespace hax
