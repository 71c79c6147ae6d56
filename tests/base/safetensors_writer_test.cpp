// The writer against the format's text and against the reader.
#include <cstring>
#include <limits>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/safetensors.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax {
namespace {

using test::contains;
using test::message_of;
using test::names_in;
using test::slurp;
using test::TemporaryFolder;

using Floats = std::vector<float>;
using Shape = std::vector<int64_t>;

TEST_CASE("the writer's bytes are the format's, aligned and in the given order") {
  const TemporaryFolder folder;
  const std::vector<uint8_t> small = {1, 2, 3};
  const Floats values = {1.0f, -2.0f};
  write_safetensors(folder.file("file"),
                    {{"z", Dtype::u8, {3}, as_bytes(small)}, {"a\n\"", Dtype::f32, {1, 2}, as_bytes(values)}},
                    {{"k2", "v\u00e9"}, {"k1", ""}});
  const std::string bytes = slurp(folder.file("file"));
  std::string header =
      "{\"__metadata__\":{\"k1\":\"\",\"k2\":\"v\u00e9\"},"
      R"("z":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
      R"("a\n\"":{"dtype":"F32","shape":[1,2],"data_offsets":[3,11]}})";
  while (header.size() % 8 != 0) header += ' ';
  std::string expected = static_cast<char>(header.size()) + std::string(7, '\0') + header + "\x01\x02\x03";
  REQUIRE(header.size() < 256);
  expected.append(reinterpret_cast<const char*>(values.data()), 8);
  CHECK(bytes == expected);
  CHECK(names_in(folder.path()) == std::set<std::string>{"file"});
}

TEST_CASE("what is written is read again") {
  const TemporaryFolder folder;
  const std::string path = folder.file("file");
  const Floats floats = {1.5f, -0.0f, std::numeric_limits<float>::infinity(), 1e-45f, 3, 4};
  const std::vector<int64_t> longs = {std::numeric_limits<int64_t>::min(), 7};
  const std::vector<uint16_t> halves = {0x3f80, 0x7fc0};
  const std::map<std::string, std::string> metadata = {{"config", "a: 1\nb: \"\u2713\"\n"},
                                                       {"", "empty key"}};
  const Floats scalar = {2.5f};
  write_safetensors(path,
                    {{"scalar", Dtype::f32, {}, as_bytes(scalar)},
                     {"nothing", Dtype::f64, {3, 0}, {}},
                     {"floats", Dtype::f32, {2, 3}, as_bytes(floats)},
                     {"longs", Dtype::i64, {2}, as_bytes(longs)},
                     {"", Dtype::bf16, {2, 1}, as_bytes(halves)}},
                    metadata);
  const Safetensors file = Safetensors::open(path);
  CHECK(file.path() == path);
  CHECK(file.metadata() == metadata);
  REQUIRE(file.tensors().size() == 5);
  CHECK(file.values<float>("scalar") == scalar);
  CHECK(file.info("nothing").shape == Shape{3, 0});
  CHECK(std::memcmp(file.values<float>("floats").data(), floats.data(), 24) == 0);
  CHECK(file.values<int64_t>("longs") == longs);
  CHECK(file.info("").dtype == Dtype::bf16);
  CHECK(file.info("").shape == Shape{2, 1});
  CHECK(std::memcmp(file.bytes("").data(), halves.data(), 4) == 0);

  write_safetensors(path, {}, {});
  CHECK(Safetensors::open(path).tensors().empty());
  CHECK(file.values<int64_t>("longs") == longs);  // an open file outlives its replacement
}

TEST_CASE("the writer refuses what could not be read again") {
  const TemporaryFolder folder;
  const std::string path = folder.file("file");
  const Floats two = {1, 2};
  const auto refused = [&](const std::vector<TensorToWrite>& tensors,
                           const std::map<std::string, std::string>& metadata = {}) {
    return message_of<std::invalid_argument>([&] { write_safetensors(path, tensors, metadata); });
  };
  const TensorToWrite w{"w", Dtype::f32, {2}, as_bytes(two)};
  CHECK(contains(refused({w, w}), "tensor \"w\": the name is taken"));
  CHECK(contains(refused({{"__metadata__", Dtype::f32, {2}, as_bytes(two)}}), "the name is taken"));
  CHECK(contains(refused({{"w", Dtype::f32, {3}, as_bytes(two)}}), "8 bytes for F32 [3]"));
  CHECK(contains(refused({{"w", Dtype::f32, {-1, -2}, as_bytes(two)}}), "8 bytes for F32 [-1,-2]"));
  CHECK(contains(refused({{"w\xff", Dtype::f32, {2}, as_bytes(two)}}), "is not UTF-8"));
  CHECK(contains(refused({}, {{"k", "\xff"}}), "is not UTF-8"));
  CHECK(contains(refused({}, {{"k", std::string(100'000'000, 'x')}}), "a header of 1000000"));
  CHECK(names_in(folder.path()).empty());
  CHECK_THROWS_AS(write_safetensors(folder.file("none/file"), {w}, {}), RuntimeError);
}

}  // namespace
}  // namespace hax
