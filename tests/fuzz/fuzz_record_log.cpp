// The lines of metrics.jsonl and timing.jsonl, as a run that goes on finds them.
#include <algorithm>

#include "lib/train/record_log.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  const std::string text = fuzz::text_of(data, size);
  std::vector<int64_t> damaged;
  const std::vector<Record> records = parse_records(text, damaged);
  const auto newlines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  const size_t lines = newlines + (text.empty() || text.back() == '\n' ? 0 : 1);
  const size_t told = records.size() + damaged.size();
  fuzz::demand(told == lines || (lines > newlines && told == newlines),
               "a line is a record, damaged or torn");
  for (const Record& record : records) {
    fuzz::demand(record.step() >= 0, "a record has a step");
    fuzz::demand(record.line.find('\n') == record.line.npos, "a record is a line");
    record.kind();
    for (const char* key : {"accuracy", "tokens_seen", "seconds", "rewinds"}) {
      record.number_of(key, -1.0);
      record.integer_of(key, -1);
    }
    nlohmann::json object = record.json;
    object.erase("checksum");
    std::string line = record_line(object);
    std::vector<int64_t> none;
    const auto again = parse_records(line, none);
    fuzz::demand(again.size() == 1 && none.empty(), "a record survives being written and read");
    // One bit of a value, where the input says: the checksum knows.
    const size_t place = static_cast<size_t>(data[0]) % (line.size() - 30);
    line[place] = static_cast<char>(line[place] ^ 1);
    fuzz::demand(parse_records(line, none).empty(), "a changed bit is found");
  }
  return 0;
}
