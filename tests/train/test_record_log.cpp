// The lines of metrics.jsonl and timing.jsonl: which are records, and what is done about the others.
#include <filesystem>

#include "lib/base/error.h"
#include "lib/train/record_log.h"
#include "tests/catch.h"
#include "tests/stderr.h"
#include "tests/support.h"

namespace hax::test {
namespace {

std::vector<Record> parsed(const std::string& text) {
  std::vector<int64_t> damaged;
  return parse_records(text, damaged);
}

std::vector<int64_t> damage_in(const std::string& text) {
  std::vector<int64_t> damaged;
  parse_records(text, damaged);
  return damaged;
}

bool keep_all(const Record&) { return true; }

std::string lines_of_steps(int64_t n) {
  std::string text;
  for (int64_t step = 1; step <= n; ++step) text += record_line({{"step", step}, {"loss", 0.5}});
  return text;
}

}  // namespace

TEST_CASE("lines that are no records are told from those that are") {
  const TemporaryFolder folder;
  const RecordLog log(folder.file("log"));
  CHECK(log.records().empty());
  CHECK_NOTHROW(log.keep_if(keep_all));
  CHECK_FALSE(std::filesystem::exists(folder.file("log")));
  log.append("{\"step\":1}\n{\"step\":2,\"x\":3}\n");
  log.append("");
  spill(folder.file("log"),
        slurp(folder.file("log")) + "[4]\n{\"x\":1}\n\n{\"step\":\"5\"}\n{\"step\":6}\n{\"step\":7}");
  std::vector<int64_t> damaged;
  const auto records = log.records(&damaged);
  REQUIRE(records.size() == 3);
  CHECK(records[2].number == 7);
  CHECK(records[2].line == "{\"step\":6}");
  CHECK(damaged == std::vector<int64_t>{3, 4, 5, 6});  // the last is torn
  log.keep_if(keep_all);
  CHECK(slurp(folder.file("log")) ==
        record_line({{"step", 1}}) + record_line({{"step", 2}, {"x", 3}}) + record_line({{"step", 6}}));
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

TEST_CASE("a line without a checksum is damaged where any other has one") {
  const std::string whole = lines_of_steps(3);
  for (const char* step : {"1", "2", "3"}) {
    std::string text = whole;
    const size_t key = text.find(",\"checksum\"", text.find("\"step\":" + std::string(step)));
    text.erase(key, text.find('}', key) - key);
    CAPTURE(text);
    CHECK(parsed(text).size() == 2);
    CHECK(damage_in(text) == std::vector<int64_t>{step[0] - '0'});
  }
  // Earlier versions wrote none; a run that goes on gives its lines theirs.
  const TemporaryFolder folder;
  const std::string path = folder.file("log");
  spill(path, "{\"loss\":0.5,\"step\":1}\n{\"loss\":0.5,\"step\":2}\n{\"loss\":0.5,\"step\":3}\n");
  CHECK(stderr_of([&] { RecordLog(path).keep_if(keep_all); }) == "");
  CHECK(slurp(path) == whole);
}

TEST_CASE("only one last line that may be a record's beginning is torn") {
  const TemporaryFolder folder;
  const std::string path = folder.file("log"), whole = lines_of_steps(5);
  const std::string first = lines_of_steps(1), second = whole.substr(first.size(), first.size());
  const auto said_of = [&](const std::string& text) {
    spill(path, text);
    std::filesystem::remove(path + ".damaged");
    const std::string said = stderr_of([&] { RecordLog(path).keep_if(keep_all); });
    CHECK(slurp(path) == first);
    CHECK(damage_in(slurp(path)).empty());
    const bool kept = std::filesystem::exists(path + ".damaged");
    CHECK(kept == !said.empty());
    if (kept) CHECK(slurp(path + ".damaged") == text);
    return said;
  };
  // Without its last byte but one, up to all but the first.
  for (size_t n = 1; n + 2 <= second.size(); ++n) {
    CAPTURE(n);
    CHECK(said_of(first + second.substr(0, n)) == "");
  }
  std::string lost = whole;
  for (size_t i = first.size(); i < lost.size(); ++i) {
    if (lost[i] == '5') lost[i] = '6';  // the losses, and one step
  }
  CHECK(contains(
      said_of(lost),
      path + ": line 2 and 3 more are damaged and left out; the file as it was is " + path + ".damaged"));
  // What a power cut and a disk leave; the newlines are gone too.
  CHECK(contains(said_of(first + std::string(300, '\0')), path + ": line 2 is damaged"));
  CHECK(contains(said_of(first + second.substr(0, 20) + std::string(100, '\0')), "line 2 is damaged"));
  CHECK(contains(said_of(first + "rubbish"), "line 2 is damaged"));
  CHECK(contains(said_of(first + "rubbish\n{\"step\""), "line 2 is damaged"));
}

TEST_CASE("a whole last line without its newline is a record") {
  const TemporaryFolder folder;
  const std::string path = folder.file("log"), whole = lines_of_steps(2);
  spill(path, whole.substr(0, whole.size() - 1));
  CHECK(RecordLog(path).records().size() == 2);
  RecordLog(path).keep_if(keep_all);
  CHECK(slurp(path) == whole);
}

TEST_CASE("lines that end with CRLF are read, and written again without") {
  const TemporaryFolder folder;
  const std::string path = folder.file("log"), whole = lines_of_steps(3);
  std::string text;
  for (const char c : whole) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  spill(path, text);
  CHECK(RecordLog(path).records().size() == 3);
  CHECK(stderr_of([&] { RecordLog(path).keep_if(keep_all); }) == "");
  CHECK(slurp(path) == whole);
  // One is an end, two are not.
  CHECK(damage_in(text.replace(text.find('\r'), 1, "\r\r")) == std::vector<int64_t>{1});
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
  CHECK_THROWS_AS(log.keep_if(keep_all), RuntimeError);
  CHECK(slurp(outside) == text);
}

}  // namespace hax::test
