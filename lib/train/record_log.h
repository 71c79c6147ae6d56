// A file of JSON objects, one a line, that grows with a run: metrics.jsonl, timing.jsonl.
//
// A killed process may leave a torn last line, a lost power supply a tail of anything that was not synced.
// Damage is thus normal behind the last record that is still wanted, and a finding before it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace hax {

struct Record {
  nlohmann::json json;  // an object with a "step"
  std::string line;     // as it stands in the file
  int64_t number = 0;   // of the line, from 1
};

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
  // Keeps the records for which keep() is true, and drops everything else. Lines that are no records and
  // stand before the last one that is kept are damage: a warning names them, and the file as it was stays as
  // PATH.damaged.
  template <class Keep>
  void keep_if(Keep keep) const {
    std::vector<int64_t> damaged;
    std::vector<Record> kept = records(&damaged);
    std::erase_if(kept, [&](const Record& record) { return !keep(record.json); });
    replace(kept, damaged);
  }

 private:
  void replace(const std::vector<Record>& kept, const std::vector<int64_t>& damaged) const;

  std::string path_;
};

}  // namespace hax
