// Errors that end a command, each with the exit status that scripts rely on.
//
// A message names the file, the key or the flag, what was found there and what would do.
#pragma once

#include <stdexcept>
#include <string>

namespace hax {

enum class ExitStatus : int {
  ok = 0,
  runtime = 1,        // the machine failed: disk, memory, device
  usage = 2,          // a flag or a config value
  data = 3,           // a dataset or checkpoint is damaged or does not fit
  diverged = 4,       // training met a non-finite loss or gradient
  out_of_time = 5,    // hax train --max-time; the state was saved
  hung_up = 129,      // SIGHUP; as below
  interrupted = 130,  // SIGINT; the state was saved
  user_signal = 138,  // SIGUSR1; as above
  terminated = 143,   // SIGTERM; the state was saved
};

class Error : public std::runtime_error {
 public:
  Error(ExitStatus status, const std::string& message) : std::runtime_error(message), status_(status) {}
  ExitStatus status() const { return status_; }

 private:
  ExitStatus status_;
};

struct RuntimeError : Error {
  explicit RuntimeError(const std::string& message) : Error(ExitStatus::runtime, message) {}
};
struct UsageError : Error {
  explicit UsageError(const std::string& message) : Error(ExitStatus::usage, message) {}
};
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(ExitStatus::data, message) {}
};
struct DivergedError : Error {
  explicit DivergedError(const std::string& message) : Error(ExitStatus::diverged, message) {}
};

}  // namespace hax
