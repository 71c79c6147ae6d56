// What may be opened to be written in place.
#include "lib/base/open_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {

TEST_CASE("a regular file is opened or made, and written in place") {
  const TemporaryFolder folder;
  const std::string path = folder.file("log");
  CHECK_THROWS_AS(open_output(path, O_WRONLY), RuntimeError);
  for (const char* text : {"one", "two"}) {
    const int fd = open_output(path, O_WRONLY | O_CREAT | O_APPEND);
    CHECK(::write(fd, text, 3) == 3);
    ::close(fd);
  }
  CHECK(slurp(path) == "onetwo");
}

TEST_CASE("links, folders, pipes and devices are never opened to be written, nor waited for") {
  const TemporaryFolder folder;
  spill(folder.file("outside"), "kept");
  std::filesystem::create_symlink("outside", folder.file("link"));
  std::filesystem::create_symlink("nowhere", folder.file("dangling"));
  REQUIRE(::mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  for (const std::string& path : {folder.file("link"), folder.file("dangling"), folder.file("pipe"),
                                  folder.path(), std::string("/dev/null")}) {
    for (const int flags : {O_RDWR, O_RDWR | O_CREAT, O_WRONLY | O_CREAT | O_APPEND}) {
      CAPTURE(path, flags);
      const std::string message = message_of<RuntimeError>([&] { open_output(path, flags); });
      CHECK(contains(message, path));
      CHECK(contains(message, "no regular file"));
    }
  }
  CHECK(slurp(folder.file("outside")) == "kept");
  CHECK_FALSE(std::filesystem::exists(folder.file("nowhere")));
}

}  // namespace hax::test
