// A file of JSON objects, one a line, that grows with a run: metrics.jsonl, timing.jsonl.
//
// A killed process may leave a torn last line, a lost power supply a tail of anything that was not synced.
// Damage is thus normal behind the last record that is still wanted, and a finding before it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

// A line that holds what a record may hold: an object with a "step" >= 0 and perhaps a "kind", a text; every
// other value is a number or null (one that was not finite). The last, "checksum", covers the rest of the
// line; lines without it, of earlier versions or by hand, are taken as they are.
struct Record {
  nlohmann::json json;
  std::string line;    // as it stands in the file
  int64_t number = 0;  // of the line, from 1

  int64_t step() const;
  std::string kind() const;  // "" without one
  // `otherwise` stands for what is missing or null; an integer is also wanted in place of a fraction.
  double number_of(const char* key, double otherwise) const;
  int64_t integer_of(const char* key, int64_t otherwise) const;
};

// The line of an object that is not empty, with its checksum and a newline.
std::string record_line(const nlohmann::json& object);
// Every whole line of a text that is a record; the numbers of the others go to `damaged`.
std::vector<Record> parse_records(std::string_view text, std::vector<int64_t>& damaged);
// "line 3 is", "line 3 and 2 more are": what is damaged before the last of the records, for a message; or
// empty.
std::string damage_among(const std::vector<Record>& records, const std::vector<int64_t>& damaged);

// What writes never goes through a symbolic link, into a device or a pipe: they are a RuntimeError or a
// DataError.
class RecordLog {
 public:
  explicit RecordLog(std::string path) : path_(std::move(path)) {}

  // Appends whole lines, each ending with a newline: all of them or, with a RuntimeError, none.
  void append(const std::string& lines) const;
  // Until then a power cut may take what was appended; a file that does not exist is in no danger.
  void sync() const;

  // Every whole line that is a record; the numbers of the others go to `damaged`, where it is given.
  std::vector<Record> records(std::vector<int64_t>* damaged = nullptr) const;
  // Cuts a torn last line off.
  void mend_tail() const;
  // Keeps the records for which keep(record) is true, and drops everything else. Lines that are no records
  // and stand before the last one that is kept are damage: a warning names them, and the file as it was stays
  // as PATH.damaged.
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
