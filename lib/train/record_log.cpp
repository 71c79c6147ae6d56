#include "lib/train/record_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"
#include "lib/base/log.h"
#include "lib/base/open_output.h"

namespace hax {
namespace {

using Json = nlohmann::json;

constexpr size_t kChecksumDigits = 8;
constexpr std::string_view kChecksumKey = ",\"checksum\":\"", kLineEnd = "\"}";
constexpr size_t kChecksumBytes = kChecksumKey.size() + kChecksumDigits + kLineEnd.size();

// What stands behind the object's other keys, its closing brace included.
std::string checksum_end(std::string_view other_keys) {
  return std::string(kChecksumKey) + checksum(as_bytes(other_keys)).substr(0, kChecksumDigits) +
         std::string(kLineEnd);
}

bool has_its_checksum(std::string_view line) {
  if (line.size() < kChecksumBytes) return false;
  const std::string_view other_keys = line.substr(0, line.size() - kChecksumBytes);
  return line.substr(other_keys.size()) == checksum_end(other_keys);
}

bool is_record(const Json& json, std::string_view line, bool needs_checksum) {
  if (!json.is_object() || (needs_checksum && !json.contains("checksum"))) return false;
  for (const auto& [key, value] : json.items()) {
    const bool sound = key == "checksum" ? has_its_checksum(line)
                       : key == "kind"   ? value.is_string()
                                         : value.is_number() || value.is_null();
    if (!sound) return false;
  }
  // A parsed integer without a sign is unsigned.
  const auto step = json.find("step");
  return step != json.end() && step->is_number_unsigned() &&
         step->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

// May this line without its newline be the beginning of one that was being written? Lines of hax are ASCII;
// what a disk leaves in their place often is not.
bool may_be_torn(std::string_view line) {
  return line.starts_with('{') &&
         std::all_of(line.begin(), line.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

// 0, or why it cannot: errno's number.
int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written == 0) return ENOSPC;
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

}  // namespace

int64_t Record::step() const { return json.at("step").get<int64_t>(); }

std::string Record::kind() const { return json.value("kind", ""); }

double Record::number_of(const char* key, double otherwise) const {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : otherwise;
}

int64_t Record::integer_of(const char* key, int64_t otherwise) const {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? found->get<int64_t>() : otherwise;
}

std::string record_line(const Json& object) {
  std::string text = object.dump();
  text.pop_back();  // the brace
  return text + checksum_end(text) + "\n";
}

std::vector<Record> parse_records(std::string_view text, std::vector<int64_t>& damaged) {
  const bool with_checksums = text.find(kChecksumKey) != std::string_view::npos;
  std::vector<Record> found;
  int64_t number = 0;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    const bool ended = end < text.size();
    std::string_view line = text.substr(begin, end - begin);
    if (ended && line.ends_with('\r')) line.remove_suffix(1);
    Record record{{}, std::string(line), ++number};
    bool whole = ended || has_its_checksum(line);
    try {
      if (whole) record.json = parse_json(line);
    } catch (const DataError&) {
      whole = false;
    }
    if (whole && is_record(record.json, line, with_checksums))
      found.push_back(std::move(record));
    else if (ended || !may_be_torn(line))
      damaged.push_back(number);
  }
  return found;
}

std::string lines_text(const std::vector<int64_t>& damaged) {
  if (damaged.empty()) return "";
  return "line " + std::to_string(damaged.front()) +
         (damaged.size() > 1 ? " and " + std::to_string(damaged.size() - 1) + " more are" : " is");
}

void RecordLog::append(const std::string& lines) const {
  const int fd = open_output(path_, O_WRONLY | O_CREAT | O_APPEND);
  const std::shared_ptr<const void> closing(nullptr, [fd](const void*) { ::close(fd); });
  struct stat before {};
  if (::fstat(fd, &before) != 0) throw RuntimeError("cannot read " + path_ + ": " + std::strerror(errno));
  int error = write_all(fd, lines);
  // What a network file system could not write may show only when a descriptor is closed.
  if (const int closed = error == 0 ? ::close(::dup(fd)) : 0; closed != 0 && errno != EINTR) error = errno;
  if (error == 0) return;
  const bool undone = ::ftruncate(fd, before.st_size) == 0;
  throw RuntimeError("cannot write " + path_ + ": " + std::strerror(error) +
                     (undone ? "" : "; its last line is torn"));
}

void RecordLog::sync() const {
  if (std::filesystem::exists(path_)) sync_file(path_);
}

std::string RecordLog::text() const { return std::filesystem::exists(path_) ? read_file(path_) : ""; }

std::string RecordLog::own_text() const {
  if (std::filesystem::is_symlink(path_)) ::close(open_output(path_, O_WRONLY));
  return text();
}

std::vector<Record> RecordLog::records(std::vector<int64_t>* damaged) const {
  std::vector<int64_t> unwanted;
  return parse_records(text(), damaged != nullptr ? *damaged : unwanted);
}

void RecordLog::replace(const std::vector<Record>& kept, const std::vector<int64_t>& damaged) const {
  const std::string before = own_text();
  std::string after;
  for (const Record& record : kept)
    after += record.json.contains("checksum") ? record.line + "\n" : record_line(record.json);
  const std::string damage = lines_text(damaged);
  if (!damage.empty()) {
    write_file(path_ + ".damaged", before);
    log::warn(path_ + ": " + damage + " damaged and left out; the file as it was is " + path_ + ".damaged");
  }
  if (after != before) write_file(path_, after);
}

}  // namespace hax
