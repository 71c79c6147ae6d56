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
#include "lib/base/log.h"

namespace hax {

void RecordLog::append(const std::string& lines) const {
  const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) throw RuntimeError("cannot open " + path_ + ": " + std::strerror(errno));
  const std::shared_ptr<const void> closing(nullptr, [fd](const void*) { ::close(fd); });
  struct stat before {};
  if (::fstat(fd, &before) != 0) throw RuntimeError("cannot read " + path_ + ": " + std::strerror(errno));
  for (size_t done = 0; done < lines.size();) {
    const ssize_t written = ::write(fd, lines.data() + done, lines.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int error = written < 0 ? errno : ENOSPC;
      const bool undone = ::ftruncate(fd, before.st_size) == 0;
      throw RuntimeError("cannot write " + path_ + ": " + std::strerror(error) +
                         (undone ? "" : "; its last line is torn"));
    }
    done += static_cast<size_t>(written);
  }
}

void RecordLog::sync() const {
  if (std::filesystem::exists(path_)) sync_file(path_);
}

std::vector<Record> RecordLog::records(std::vector<int64_t>* damaged) const {
  std::vector<Record> found;
  if (!std::filesystem::exists(path_)) return found;
  const std::string text = read_file(path_);
  int64_t number = 0;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    Record record{{}, text.substr(begin, end - begin), ++number};
    record.json = nlohmann::json::parse(record.line, nullptr, /*allow_exceptions=*/false);
    const bool whole = end < text.size() && record.json.is_object() && record.json.contains("step") &&
                       record.json["step"].is_number_integer();
    if (whole)
      found.push_back(std::move(record));
    else if (damaged != nullptr)
      damaged->push_back(number);
  }
  return found;
}

void RecordLog::mend_tail() const {
  if (!std::filesystem::exists(path_)) return;
  const std::string text = read_file(path_);
  if (text.empty() || text.back() == '\n') return;
  const size_t newline = text.rfind('\n');
  write_file(path_, text.substr(0, newline == std::string::npos ? 0 : newline + 1));
}

void RecordLog::replace(const std::vector<Record>& kept, const std::vector<int64_t>& damaged) const {
  if (!std::filesystem::exists(path_)) return;
  const std::string before = read_file(path_);
  std::string after;
  for (const Record& record : kept) after += record.line + "\n";
  const int64_t last = kept.empty() ? 0 : kept.back().number;
  const auto bad = std::count_if(damaged.begin(), damaged.end(), [&](int64_t n) { return n < last; });
  if (bad > 0) {
    write_file(path_ + ".damaged", before);
    log::warn(path_ + ": line " + std::to_string(damaged.front()) +
              (bad > 1 ? " and " + std::to_string(bad - 1) + " more are" : " is") +
              " damaged and left out; the file as it was is " + path_ + ".damaged");
  }
  if (after != before) write_file(path_, after);
}

}  // namespace hax
