// Files that keep their name while they are written: logs that grow, locks.
#pragma once

#include <string>

namespace hax {

// Opens a regular file with `flags` (O_RDONLY, O_WRONLY or O_RDWR, and O_APPEND, O_CREAT: mode 0644 less the
// umask) and returns its descriptor. Never goes through a symbolic link, into a folder, a device or a pipe,
// and never waits for one: those, and every failure of the system, are a RuntimeError that names the path.
int open_output(const std::string& path, int flags);

}  // namespace hax
