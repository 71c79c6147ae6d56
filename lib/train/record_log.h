// A file of JSON objects, one a line, that grows with a run: metrics.jsonl, timing.jsonl.
//
// A killed process may leave a torn last line: the beginning of a record, without its newline. That is no
// damage, and is written again; anything else that is no record is.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

// A line that holds what a record may hold: an object with a "step" >= 0 and perhaps a "kind", a text; every
// other value is a number or null (one that was not finite). The last, "checksum", covers the rest of the
// line. Earlier versions wrote none: a file in which no line has one is taken as it is, and in any other a
// line without it is damaged. Lines may end with CRLF.
struct Record {
  nlohmann::json json;
  std::string line;    // as it stands in the file, without its end
  int64_t number = 0;  // of the line, from 1

  int64_t step() const;
  std::string kind() const;  // "" without one
  // `otherwise` stands for what is missing or null; an integer is also wanted in place of a fraction.
  double number_of(const char* key, double otherwise) const;
  int64_t integer_of(const char* key, int64_t otherwise) const;
};

// The line of an object that is not empty, with its checksum and a newline.
std::string record_line(const nlohmann::json& object);
// Every line of a text that is a record; the numbers of the others go to `damaged`, but for a torn last one.
std::vector<Record> parse_records(std::string_view text, std::vector<int64_t>& damaged);
// "line 3 is", "line 3 and 2 more are", for a message; or empty.
std::string lines_text(const std::vector<int64_t>& damaged);

// What writes never goes through a symbolic link, into a device or a pipe: they are a RuntimeError or a
// DataError.
class RecordLog {
 public:
  explicit RecordLog(std::string path) : path_(std::move(path)) {}

  // Appends whole lines, each ending with a newline: all of them or, with a RuntimeError, none.
  void append(const std::string& lines) const;
  // Until then a power cut may take what was appended; a file that does not exist is in no danger.
  void sync() const;

  // As parse_records() has them; `damaged` may be left out.
  std::vector<Record> records(std::vector<int64_t>* damaged = nullptr) const;
  // Keeps the records for which keep(record) is true, each with its checksum, and drops everything else. Of
  // damaged lines, wherever they stand, a warning tells, and the file as it was stays as PATH.damaged.
  template <class Keep>
  void keep_if(Keep keep) const {
    std::vector<int64_t> damaged;
    std::vector<Record> kept = records(&damaged);
    std::erase_if(kept, [&](const Record& record) { return !keep(record); });
    replace(kept, damaged);
  }

 private:
  // The file's text; empty where there is none. own_text() also refuses what append() would refuse, so that
  // it comes to light where a run begins.
  std::string text() const;
  std::string own_text() const;
  void replace(const std::vector<Record>& kept, const std::vector<int64_t>& damaged) const;

  std::string path_;
};

}  // namespace hax
