#include "lib/base/file_fault.h"

namespace hax {
namespace {

const char* remedy(const std::error_code& code) {
  if (code == std::errc::permission_denied || code == std::errc::operation_not_permitted)
    return "give this user the right to it (`ls -ld` shows who has it), or name another";
  if (code == std::errc::filename_too_long) return "give a shorter name";
  if (code == std::errc::too_many_symbolic_link_levels) return "remove the link that leads to itself";
  if (code == std::errc::no_such_file_or_directory || code == std::errc::not_a_directory)
    return "make it, or name another";
  if (code == std::errc::no_space_on_device) return "make room there, or name another";
  if (code == std::errc::read_only_file_system) return "name one on a file system that can be written";
  return "name another, or look after the file system it lies on";
}

}  // namespace

std::string fault_text(const std::filesystem::filesystem_error& error) {
  std::string path = error.path1().string();
  if (!error.path2().empty()) path += " and " + error.path2().string();
  if (path.empty()) path = "a path";
  return path + ": cannot be used: " + error.code().message() + "; " + remedy(error.code());
}

}  // namespace hax
