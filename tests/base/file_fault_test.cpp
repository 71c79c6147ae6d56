#include "lib/base/file_fault.h"

#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {

namespace fs = std::filesystem;

TEST_CASE("a path that cannot be looked at is told with the reason and a remedy") {
  const TemporaryFolder folder;
  const std::string longer = folder.file(std::string(300, 'x')), loop = folder.file("loop");
  fs::create_symlink("loop", loop);
  const auto said = [](const std::string& path) {
    try {
      static_cast<void>(fs::exists(path));
    } catch (const fs::filesystem_error& e) {
      return fault_text(e);
    }
    return std::string();
  };
  CHECK(said(longer) == longer + ": cannot be used: File name too long; give a shorter name");
  CHECK(contains(said(loop), loop + ": cannot be used: "));
  CHECK(contains(said(loop), "remove the link that leads to itself"));
  const auto denied = std::make_error_code(std::errc::permission_denied);
  const std::string two = fault_text({"rename", "a", "b", denied});
  CHECK(contains(two, "a and b: cannot be used: Permission denied; give this user the right to it"));
  CHECK(contains(fault_text({"what", denied}), "a path: cannot be used"));
}

}  // namespace hax::test
