#include "lib/data/dataset.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data_gen/generate.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/random.h"
#include "lib/data/split_columns.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::mentions;
using hax::test::message_of;
using hax::test::Scratch;

namespace {

DataSpec small_spec(TargetKind kind, int64_t vocab_size = 50) {
  DataSpec spec;
  spec.task = "test";
  spec.vocab_size = vocab_size;
  spec.padded_tokens = 6;
  spec.target_kind = kind;
  spec.slice_columns = {"a", "b"};
  spec.chance = 0.25;
  return spec;
}

std::vector<Example> small_examples(const DataSpec& spec) {
  const auto top = static_cast<int32_t>(spec.vocab_size - 1);
  if (spec.target_kind == TargetKind::label) {
    return {{{1, 2, 3}, {0, 2}, {4, top}, {7, -1}},
            {{5}, {}, {}, {8, 2}},
            {{top, 0, 1, 2, 3, 4}, {5}, {0}, {9, 3}}};
  }
  return {{{1, 2, 3}, {0, 1}, {2, 3}, {7, -1}},
          {{5}, {}, {}, {8, 2}},
          {{0, 1, 2, 3, 4, top}, {4}, {top}, {9, 3}}};
}

// A dataset written by hand.
void write_dataset(const std::string& folder, const DataSpec& spec, const std::vector<Example>& examples) {
  make_directories(folder);
  Manifest manifest;
  manifest.spec = spec;
  manifest.parameters = "{\"x\":1}";
  manifest.origin = "generated";
  manifest.program_version = "test";
  manifest.seed = 3;
  for (Split split : kSplits) {
    SplitColumns columns(spec, static_cast<int64_t>(examples.size()));
    if (split != Split::test) columns.append(examples, 1);  // an empty split is a split
    manifest.split(split) = columns.write(folder, split);
  }
  write_manifest(folder, manifest);
}

std::string open_error(const std::string& folder) {
  return message_of<DataError>([&] { Dataset::open(folder, 2); });
}

}  // namespace

TEST_CASE("a dataset gives back what was written, at every width of token") {
  for (const TargetKind kind : {TargetKind::next_token, TargetKind::label}) {
    for (const int64_t vocab_size : {50, 256, 257, 65536, 65537, 1000000}) {
      const Scratch scratch;
      const DataSpec spec = small_spec(kind, vocab_size);
      const std::vector<Example> examples = small_examples(spec);
      write_dataset(scratch / "d", spec, examples);
      const Dataset dataset = Dataset::open(scratch / "d", 2);
      CHECK(dataset.spec().vocab_size == vocab_size);
      CHECK(dataset.spec().target_kind == kind);
      CHECK(dataset.spec().chance == 0.25);
      CHECK(dataset.spec().slice_columns == spec.slice_columns);
      CHECK(dataset.manifest().seed == 3);
      CHECK(dataset.split(Split::test).size() == 0);
      const FileSource& train = dataset.split(Split::train);
      REQUIRE(train.size() == 3);
      Batch expected = empty_batch(spec);
      Batch read = empty_batch(spec);
      Example example;
      for (int64_t i = 0; i < 3; ++i) {
        train.example(i, example);
        CHECK(example.tokens == examples[static_cast<size_t>(i)].tokens);
        CHECK(example.scored == examples[static_cast<size_t>(i)].scored);
        CHECK(example.targets == examples[static_cast<size_t>(i)].targets);
        CHECK(example.slices == examples[static_cast<size_t>(i)].slices);
        append(spec, examples[static_cast<size_t>(i)], expected);
        train.append_example(i, read);
      }
      CHECK(read.tokens == expected.tokens);
      CHECK(read.scored == expected.scored);
      CHECK_THROWS_AS(train.example(3, example), std::invalid_argument);
      CHECK_THROWS_AS(train.example(-1, example), std::invalid_argument);
    }
  }
}

TEST_CASE("dtypes of a dataset are the narrowest") {
  CHECK(token_dtype(small_spec(TargetKind::label, 256)) == Dtype::u8);
  CHECK(token_dtype(small_spec(TargetKind::label, 257)) == Dtype::u16);
  CHECK(token_dtype(small_spec(TargetKind::label, 65537)) == Dtype::i32);
  DataSpec spec = small_spec(TargetKind::label);
  CHECK(position_dtype(spec) == Dtype::u16);
  spec.padded_tokens = 65537;
  CHECK(position_dtype(spec) == Dtype::i32);
}

TEST_CASE("a damaged dataset is refused by name") {
  const Scratch scratch;
  const std::string folder = scratch / "d";
  write_dataset(folder, small_spec(TargetKind::label), small_examples(small_spec(TargetKind::label)));
  REQUIRE(open_error(folder).empty());
  const std::string valid = split_path(folder, Split::valid);
  const std::string good = read_file(valid);

  SECTION("no folder") { CHECK(mentions(open_error(scratch / "none"), scratch / "none")); }
  SECTION("no manifest: an interrupted generation") {
    std::filesystem::remove(manifest_path(folder));
    CHECK(mentions(open_error(folder), manifest_path(folder)));
    CHECK(mentions(open_error(folder), "interrupted"));
  }
  SECTION("a missing file") {
    std::filesystem::remove(valid);
    CHECK(mentions(open_error(folder), valid));
  }
  SECTION("a truncated file") {
    write_file(valid, std::string_view(good).substr(0, good.size() - 1));
    CHECK(mentions(open_error(folder), valid));
    CHECK(mentions(open_error(folder), "bytes"));
  }
  SECTION("every flipped byte") {
    for (size_t at = 0; at < good.size(); ++at) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 1);
      std::ofstream(valid, std::ios::binary) << bad;  // write_file would wait for the disk each time
      INFO("byte " << at);
      REQUIRE(mentions(open_error(folder), valid + ": checksum"));
    }
  }
  SECTION("splits swapped") {
    write_file(valid, read_file(split_path(folder, Split::test)));
    CHECK(mentions(open_error(folder), valid));
  }
}

TEST_CASE("a changed manifest is refused by the key") {
  const Scratch scratch;
  const std::string folder = scratch / "d";
  write_dataset(folder, small_spec(TargetKind::label), small_examples(small_spec(TargetKind::label)));
  const nlohmann::json good = nlohmann::json::parse(read_file(manifest_path(folder)));
  const auto with = [&](const std::string& pointer, const nlohmann::json& value) {
    nlohmann::json changed = good;
    changed[nlohmann::json::json_pointer(pointer)] = value;
    write_file(manifest_path(folder), changed.dump());
    return open_error(folder);
  };
  REQUIRE(with("/seed", good["seed"]).empty());
  CHECK(mentions(with("/seed", 4), "checksum"));
  CHECK(mentions(with("/origin", "imported"), "checksum"));
  CHECK(mentions(with("/program_version", "9"), "checksum"));
  CHECK(mentions(with("/spec/chance", 2.0), "spec.chance"));
  CHECK(mentions(with("/note", "x"), "\"note\" is unknown"));
  CHECK(mentions(with("/format", "other"), "format"));
  CHECK(mentions(with("/version", 2), "version"));
  CHECK(mentions(with("/version", 1.5), "version"));
  CHECK(mentions(with("/seed", -1), "seed"));
  CHECK(mentions(with("/seed", 18446744073709551615ULL), "seed"));
  CHECK(mentions(with("/spec/vocab_size", 40), "fingerprint"));
  CHECK(mentions(with("/spec/vocab_size", "50"), "spec.vocab_size"));
  CHECK(mentions(with("/spec/target_kind", "both"), "spec.target_kind"));
  CHECK(mentions(with("/spec/slice_columns", {1, 2}), "spec.slice_columns"));
  CHECK(mentions(with("/spec/slots", {{{"name", "key"}}}), "spec.slots"));
  CHECK(mentions(with("/spec/slots", {{{"name", "key"}, {"first", 49}, {"count", 2}, {"is_value", false}}}),
                 "spec.slots"));
  CHECK(mentions(with("/spec/slots", {{{"name", "key"}, {"first", 0}, {"count", 1}, {"is_value", false}}}),
                 "fingerprint"));
  CHECK(mentions(with("/parameters/x", 2), "fingerprint"));
  CHECK(mentions(with("/parameters", 2), "parameters"));
  CHECK(mentions(with("/splits/train/examples", 2), "fingerprint"));
  CHECK(mentions(with("/splits/train/bytes", 17), "checksum"));
  CHECK(mentions(with("/splits/train", nullptr), "splits.train"));
  // Without a checksum, as an older program wrote it, other proofs are left.
  const auto older_with = [&](const std::string& pointer, const nlohmann::json& value) {
    nlohmann::json older = good;
    older.erase("checksum");
    older[nlohmann::json::json_pointer(pointer)] = value;
    write_file(manifest_path(folder), older.dump());
    return open_error(folder);
  };
  CHECK(older_with("/seed", 4).empty());
  CHECK(mentions(older_with("/splits/train/bytes", 17), "train.safetensors"));
  CHECK(mentions(older_with("/splits/train/tokens", 17), "train.safetensors"));
  nlohmann::json changed = good;
  changed.erase("spec");
  write_file(manifest_path(folder), changed.dump());
  CHECK(mentions(open_error(folder), "spec"));
  write_file(manifest_path(folder), "{\"format\": ");
  CHECK(mentions(open_error(folder), "not valid JSON"));
}

TEST_CASE("no bit of a manifest can change, and no end be missing") {
  const Scratch scratch;
  const std::string folder = scratch / "d";
  write_dataset(folder, small_spec(TargetKind::label), small_examples(small_spec(TargetKind::label)));
  const std::string path = manifest_path(folder);
  const std::string good = read_file(path);
  const auto error_with = [&](std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
    return message_of<DataError>([&] { read_manifest(folder); });
  };
  REQUIRE(error_with(good).empty());
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    INFO("bit " << bit);
    const std::string message = error_with(bad);
    REQUIRE(mentions(message, path));
    REQUIRE(mentions(message, "generate the dataset again"));
  }
  for (size_t length = 0; length + 1 < good.size(); ++length) {  // the last line end says nothing
    INFO("length " << length);
    REQUIRE(mentions(error_with(std::string_view(good).substr(0, length)), path));
  }
  std::filesystem::resize_file(path, uint64_t{1} << 40);
  CHECK(mentions(message_of<DataError>([&] { read_manifest(folder); }), "another kind of file"));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  CHECK(mentions(message_of<DataError>([&] { read_manifest(folder); }), "it is a folder"));
  std::filesystem::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(mentions(message_of<DataError>([&] { read_manifest(folder); }), "not a regular file"));
}

TEST_CASE("files whose checksums fit but whose contents do not are refused") {
  // Written as a faulty writer would: the manifest describes the spoilt file truthfully.
  struct Columns {
    std::vector<uint8_t> tokens = {1, 2, 3, 4, 5};
    std::vector<int64_t> offsets = {0, 3, 5};
    std::vector<uint16_t> scored = {0, 1, 0};
    std::vector<int64_t> scored_offsets = {0, 2, 3};
    std::vector<int32_t> slices = {1, 2, 3, 4};
    std::string drop;
    Dtype slice_dtype = Dtype::i32;
  };
  const auto error = [](const Columns& c) {
    const Scratch scratch;
    const std::string folder = scratch / "d";
    const DataSpec spec = small_spec(TargetKind::next_token);
    write_dataset(folder, spec, small_examples(spec));
    Manifest manifest = read_manifest(folder);
    const auto length = [](const auto& column) {
      return std::vector<int64_t>{static_cast<int64_t>(column.size())};
    };
    std::vector<TensorToWrite> all = {
        {"tokens", Dtype::u8, length(c.tokens), as_bytes(c.tokens)},
        {"offsets", Dtype::i64, length(c.offsets), as_bytes(c.offsets)},
        {"scored", Dtype::u16, length(c.scored), as_bytes(c.scored)},
        {"scored_offsets", Dtype::i64, length(c.scored_offsets), as_bytes(c.scored_offsets)},
        {"slices", c.slice_dtype, {2, 2}, as_bytes(c.slices)}};
    std::erase_if(all, [&](const TensorToWrite& tensor) { return tensor.name == c.drop; });
    const std::string path = split_path(folder, Split::train);
    write_safetensors(path, all, {});
    manifest.split(Split::train) = {2, 5, static_cast<int64_t>(std::filesystem::file_size(path)),
                                    file_checksum(path)};
    write_manifest(folder, manifest);
    const std::string message = open_error(folder);
    CHECK((message.empty() || mentions(message, path)));
    return message;
  };
  Columns c;
  REQUIRE(error(c).empty());
  SECTION("tensor missing") {
    c.drop = "scored";
    CHECK(mentions(error(c), "no tensor 'scored'"));
  }
  SECTION("wrong dtype") {
    c.slice_dtype = Dtype::u32;
    CHECK(mentions(error(c), "slices"));
  }
  SECTION("wrong shape") {
    c.offsets = {0, 3, 4, 5};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("offsets fall") {
    c.offsets = {0, 6, 5};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("offsets negative") {
    c.offsets = {0, -1, 5};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("offsets start late") {
    c.offsets = {1, 3, 5};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("offsets end early") {
    c.offsets = {0, 3, 4};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("offsets huge") {
    c.offsets = {0, INT64_MAX, 5};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("scored offsets fall") {
    c.scored_offsets = {0, 4, 3};
    CHECK(mentions(error(c), "scored_offsets"));
  }
  SECTION("example longer than the padded row") {
    c.tokens = {1, 2, 3, 4, 5, 6, 7, 8};
    c.offsets = {0, 7, 8};
    CHECK(mentions(error(c), "offsets"));
  }
  SECTION("token outside the vocabulary") {
    c.tokens[4] = 50;
    CHECK(mentions(error(c), "vocabulary"));
  }
  SECTION("scored past the last question") {
    c.scored = {0, 2, 0};
    CHECK(mentions(error(c), "scored position 2"));
  }
  SECTION("scored out of order") {
    c.scored = {1, 0, 0};
    CHECK(mentions(error(c), "scored position 0"));
  }
  SECTION("scored twice") {
    c.scored = {1, 1, 0};
    CHECK(mentions(error(c), "scored position 1"));
  }
}
