// A packed batch against the official padded one: model input tokens[:-1], targets tokens[1:], mask[:-1].
#include <filesystem>
#include <iterator>
#include <sstream>

#include "data_gen/text.h"
#include "lib/base/files.h"
#include "lib/data/batches.h"
#include "lib/data/dataset.h"
#include "tests/catch.h"
#include "tests/data_gen/golden.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::golden_path;
using hax::test::Scratch;

namespace {

std::vector<std::vector<int32_t>> rows_of(const std::string& path) {
  std::vector<std::vector<int32_t>> rows;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    rows.emplace_back(std::istream_iterator<int32_t>(words), std::istream_iterator<int32_t>());
  }
  return rows;
}

}  // namespace

TEST_CASE("a packed batch holds what the official model reads and is scored on", "[golden]") {
  constexpr int32_t kPad = 3;
  const Scratch scratch;
  TextImport import;
  import.folder = golden_path("joint_recall_text");
  import.out = scratch / "d";
  import.threads = 1;
  import_text(import);
  const Dataset dataset = Dataset::open(scratch / "d", 1);
  std::string inputs_path;
  const std::string ending = "_train_inputs.txt";
  for (const auto& entry : std::filesystem::directory_iterator(import.folder)) {
    if (entry.path().string().ends_with(ending)) inputs_path = entry.path().string();
  }
  const auto tokens = rows_of(inputs_path);
  const auto mask = rows_of(inputs_path.substr(0, inputs_path.size() - ending.size()) + "_train_mask.txt");
  const FileSource& train = dataset.split(Split::train);
  REQUIRE(train.size() == static_cast<int64_t>(tokens.size()));
  const Batch batch = consecutive_batch(train, 0, train.size());
  REQUIRE(batch.padded_length == static_cast<int64_t>(tokens.at(0).size()) - 1);
  for (size_t b = 0; b < tokens.size(); ++b) {
    std::vector<int32_t> inputs;
    std::vector<int32_t> scored;
    std::vector<int32_t> targets;
    for (size_t i = 0; i + 1 < tokens[b].size(); ++i) {
      if (tokens[b][i] != kPad) inputs.push_back(tokens[b][i]);
      if (mask[b][i] == 0) continue;
      scored.push_back(batch.cu_seqlens[b] + static_cast<int32_t>(i));
      targets.push_back(tokens[b][i + 1]);
    }
    const auto part = [](const std::vector<int32_t>& all, int32_t begin, int32_t end) {
      return std::vector<int32_t>(all.begin() + begin, all.begin() + end);
    };
    INFO("example " << b);
    CHECK(part(batch.tokens, batch.cu_seqlens[b], batch.cu_seqlens[b + 1]) == inputs);
    CHECK(part(batch.scored, batch.cu_scored[b], batch.cu_scored[b + 1]) == scored);
    CHECK(part(batch.targets, batch.cu_scored[b], batch.cu_scored[b + 1]) == targets);
  }
}
