// The lines of metrics.jsonl and timing.jsonl: which are records, and what is done about the others.
#include <filesystem>

#include "lib/base/error.h"
#include "lib/train/record_log.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {
namespace {

std::vector<Record> parsed(const std::string& text) {
  std::vector<int64_t> damaged;
  return parse_records(text, damaged);
}

}  // namespace

TEST_CASE("lines that are no records are told from those that are") {
  const TemporaryFolder folder;
  const RecordLog log(folder.file("log"));
  CHECK(log.records().empty());
  CHECK_NOTHROW(log.mend_tail());
  log.append("{\"step\":1}\n{\"step\":2,\"x\":3}\n");
  log.append("");
  spill(folder.file("log"),
        slurp(folder.file("log")) + "[4]\n{\"x\":1}\n\n{\"step\":\"5\"}\n{\"step\":6}\n{\"step\":7}");
  std::vector<int64_t> damaged;
  const auto records = log.records(&damaged);
  REQUIRE(records.size() == 3);
  CHECK(records[2].number == 7);
  CHECK(records[2].line == "{\"step\":6}");
  CHECK(damaged == std::vector<int64_t>{3, 4, 5, 6, 8});
  log.mend_tail();
  CHECK(slurp(folder.file("log")).ends_with("{\"step\":6}\n"));
  CHECK_THROWS_AS(RecordLog(folder.file("none/log")).append("{}\n"), RuntimeError);
}

TEST_CASE("a record has a step, its kind is a text and all else a number") {
  for (const char* line :
       {"{\"step\":-1}", "{\"step\":1.0}", "{\"step\":9223372036854775808}", "{\"step\":1,\"kind\":7}",
        "{\"step\":1,\"kind\":null}", "{\"step\":1,\"loss\":\"2\"}", "{\"step\":1,\"loss\":[2]}",
        "{\"step\":1,\"step\":2}", "{\"step\":1,\"checksum\":8}", "{\"step\":1,\"checksum\":\"00000000\"}"}) {
    CAPTURE(line);
    CHECK(parsed(std::string(line) + "\n").empty());
  }
  const auto records =
      parsed("{\"step\":9223372036854775807,\"kind\":\"x\",\"loss\":null,\"lr\":0.5,\"n\":3}\n");
  REQUIRE(records.size() == 1);
  const Record& record = records[0];
  CHECK(record.step() == INT64_MAX);
  CHECK(record.kind() == "x");
  CHECK(parsed("{\"step\":1}\n")[0].kind() == "");
  CHECK(record.number_of("loss", -1.0) == -1.0);
  CHECK(record.number_of("lr", -1.0) == 0.5);
  CHECK(record.number_of("none", -1.0) == -1.0);
  CHECK(record.integer_of("n", -1) == 3);
  CHECK(record.integer_of("lr", -1) == -1);
}

TEST_CASE("no bit of a line can change unnoticed, and lines without a checksum are read") {
  const nlohmann::json object = {{"kind", "valid"}, {"step", 12}, {"accuracy", 0.8125}, {"loss", 1.5e-3}};
  const std::string line = record_line(object);
  REQUIRE(line.back() == '\n');
  REQUIRE(parsed(line).size() == 1);
  nlohmann::json read = parsed(line)[0].json;
  CHECK(read.erase("checksum") == 1);
  CHECK(read == object);
  CHECK(parsed(object.dump() + "\n").size() == 1);

  for (size_t i = 0; i + 1 < line.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = line;
      changed[i] = static_cast<char>(changed[i] ^ 1 << bit);
      CAPTURE(changed);
      CHECK(parsed(changed).empty());
    }
  }
}

TEST_CASE("a log is not written through a link, and this comes to light before the first line") {
  const TemporaryFolder folder;
  const std::string outside = folder.file("outside"), text = "{\"step\":1}\n{\"st";
  spill(outside, text);
  const RecordLog log(folder.file("log"));
  std::filesystem::create_symlink("outside", folder.file("log"));
  CHECK(log.records().size() == 1);  // reading is free
  CHECK_THROWS_AS(log.append("{\"step\":2}\n"), RuntimeError);
  CHECK_THROWS_AS(log.mend_tail(), RuntimeError);
  CHECK_THROWS_AS(log.keep_if([](const Record&) { return true; }), RuntimeError);
  CHECK(slurp(outside) == text);
}

}  // namespace hax::test
