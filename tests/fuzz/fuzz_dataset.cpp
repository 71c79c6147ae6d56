// The columns of a split under a manifest whose size and checksum fit, as a faulty writer would leave them.
// The first bytes choose the spec; then either a whole safetensors file follows, or the columns themselves.
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/dataset.h"
#include "lib/data/split_columns.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hax;

// The folder of this process, in memory where the system has such a place.
const std::string& folder() {
  static const std::string made = [] {
    const bool shm = ::access("/dev/shm", W_OK) == 0;
    std::string pattern = std::string(shm ? "/dev/shm" : "/tmp") + "/hax-fuzz-XXXXXX";
    fuzz::demand(mkdtemp(pattern.data()) != nullptr, "mkdtemp");
    static std::string kept = pattern;
    std::atexit([] { std::filesystem::remove_all(kept); });
    return pattern;
  }();
  return made;
}

// "TENSOR, shape" of a header, and its bytes behind those of the others.
void add(std::string& header, std::string& data, const char* name, Dtype dtype, const std::string& shape,
         std::string_view bytes) {
  header += (header.empty() ? "{\"" : ",\"") + std::string(name) + "\":{\"dtype\":\"" +
            std::string(dtype_name(dtype)) + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
            std::to_string(data.size()) + "," + std::to_string(data.size() + bytes.size()) + "]}";
  data += bytes;
}

// The numbers of a byte each, as int64 and int32 columns.
template <class T>
std::string widened(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    const T value = static_cast<signed char>(byte);
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return out;
}

std::string columns_file(fuzz::Bytes& bytes, const DataSpec& spec, int64_t examples) {
  const auto n = static_cast<size_t>(examples);
  const std::string offsets = widened<int64_t>(bytes.take(n + 1));
  const std::string scored_offsets = widened<int64_t>(bytes.take(n + 1));
  const std::string slices = widened<int32_t>(bytes.take(n * spec.slice_columns.size()));
  const size_t position_size = dtype_size(position_dtype(spec)), token_size = dtype_size(token_dtype(spec));
  std::string_view scored = bytes.take(bytes.byte());
  scored = scored.substr(0, scored.size() / position_size * position_size);
  const size_t questions = scored.size() / position_size;
  std::string_view targets = bytes.take(questions * token_size);
  std::string_view tokens = bytes.rest();
  tokens = tokens.substr(0, tokens.size() / token_size * token_size);
  std::string header, data;
  const auto count = [](size_t value) { return std::to_string(value); };
  add(header, data, "tokens", token_dtype(spec), count(tokens.size() / token_size), tokens);
  add(header, data, "offsets", Dtype::i64, count(offsets.size() / 8), offsets);
  add(header, data, "scored", position_dtype(spec), count(questions), scored);
  add(header, data, "scored_offsets", Dtype::i64, count(scored_offsets.size() / 8), scored_offsets);
  const size_t width = spec.slice_columns.size();
  add(header, data, "slices", Dtype::i32,
      count(width == 0 ? n : slices.size() / 4 / width) + "," + count(width), slices);
  if (spec.target_kind == TargetKind::label) {
    add(header, data, "targets", token_dtype(spec), count(targets.size() / token_size), targets);
  }
  header += '}';
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + data;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Bytes bytes(data, size);
  const uint8_t choice = bytes.byte();
  Manifest manifest;
  DataSpec& spec = manifest.spec;
  spec.task = "fuzz";
  constexpr int64_t vocabularies[] = {20, 256, 300, 70000};
  spec.vocab_size = vocabularies[choice >> 1 & 3];
  spec.padded_tokens = (choice >> 3 & 1) != 0 ? 70000 : 12;
  spec.target_kind = (choice & 1) != 0 ? TargetKind::label : TargetKind::next_token;
  spec.slice_columns.assign(choice >> 4 & 3, "s");
  SplitEntry& entry = manifest.split(Split::train);
  entry.examples = bytes.byte() % 16;
  entry.tokens = bytes.byte();
  const bool whole_file = (choice & 0x80) != 0;
  const std::string file = whole_file ? std::string(bytes.rest()) : columns_file(bytes, spec, entry.examples);

  const std::string path = split_path(folder(), Split::train);
  std::ofstream(path, std::ios::binary) << file;
  entry.bytes = static_cast<int64_t>(file.size());
  entry.checksum = checksum(as_bytes(file));
  try {
    const FileSource source(folder(), Split::train, manifest, 1);
    Example example;
    int64_t tokens = 0;
    for (int64_t i = 0; i < source.size(); ++i) {
      source.example(i, example);
      tokens += static_cast<int64_t>(example.tokens.size());
      fuzz::demand(example.scored.size() == example.targets.size(), "every question has an answer");
      for (const int32_t token : example.tokens)
        fuzz::demand(token >= 0 && token < spec.vocab_size, "tokens lie in the vocabulary");
      for (const int32_t token : example.targets)
        fuzz::demand(token >= 0 && token < spec.vocab_size, "targets lie in the vocabulary");
      for (const int32_t position : example.scored)
        fuzz::demand(position >= 0 && position < static_cast<int64_t>(example.tokens.size()),
                     "questions lie in their example");
    }
    fuzz::demand(tokens == entry.tokens, "the examples hold the manifest's tokens");
  } catch (const DataError& error) {
    fuzz::demand(std::string_view(error.what()).find(path) != std::string_view::npos,
                 "a refusal names the file");
  }
  return 0;
}
