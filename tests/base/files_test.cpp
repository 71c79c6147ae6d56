// Files appear whole or not at all, whatever stops the writer.
#include "lib/base/files.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax {
namespace {

using test::contains;
using test::message_of;
using test::names_in;
using test::slurp;
using test::spill;
using test::TemporaryFolder;

using Names = std::set<std::string>;

const std::string stale_name = ".hax-0123456789abcdef0123456789abcdef.tmp";

TEST_CASE("a file is invisible until commit and then whole") {
  const TemporaryFolder folder;
  const std::string path = folder.file("out");
  spill(path, "old");
  {
    AtomicFile file(path);
    file.write("new ");
    file.write(as_bytes(std::vector<char>{'t', 'e', 'x', 't'}));
    CHECK(slurp(path) == "old");
    file.commit();
    CHECK(slurp(path) == "new text");
    CHECK_THROWS_AS(file.write("more"), std::invalid_argument);
    CHECK_THROWS_AS(file.commit(), std::invalid_argument);
  }
  CHECK(slurp(path) == "new text");
  CHECK(names_in(folder.path()) == Names{"out"});
}

TEST_CASE("a file without commit leaves nothing behind") {
  const TemporaryFolder folder;
  {
    AtomicFile file(folder.file("out"));
    file.write("half");
    CHECK(names_in(folder.path()).size() == 1);
  }
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("a file has mode 0644 less the umask") {
  const TemporaryFolder folder;
  for (const auto& [mask, mode] : {std::pair<mode_t, mode_t>{0, 0644}, {0027, 0640}}) {
    const mode_t before = umask(mask);
    write_file(folder.file("out"), "x");
    umask(before);
    struct stat status {};
    REQUIRE(stat(folder.file("out").c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == mode);
  }
}

TEST_CASE("a relative path without a folder works") {
  const TemporaryFolder folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file("plain", "x");
  std::filesystem::current_path(before);
  CHECK(slurp(folder.file("plain")) == "x");
}

TEST_CASE("failures name the path and the system's reason") {
  const TemporaryFolder folder;
  const std::string missing = folder.file("missing/out");
  const std::string create = message_of<RuntimeError>([&] { write_file(missing, "x"); });
  CHECK(contains(create, missing));
  CHECK(contains(create, "there is no folder " + folder.file("missing") + "; make it first"));

  std::filesystem::create_directory(folder.file("taken"));
  const std::string rename = message_of<RuntimeError>([&] { write_file(folder.file("taken"), "x"); });
  CHECK(contains(rename, folder.file("taken")));
  CHECK(contains(rename, "is a folder"));
  CHECK(names_in(folder.path()) == Names{"taken"});

  CHECK_THROWS_AS(write_file("", "x"), RuntimeError);
  CHECK_THROWS_AS(write_file(folder.file("slash/"), "x"), RuntimeError);
}

// A limit on the file's size stops a write as a full disk does: the first call is short, the next fails.
TEST_CASE("a write that the system cuts short is an error and leaves the old file") {
  const TemporaryFolder folder;
  const std::string path = folder.file("out");
  spill(path, "old");
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = message_of<RuntimeError>([&] { write_file(path, std::string(10000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  CHECK(contains(message, "cannot write " + path + ": File too large"));
  CHECK(slurp(path) == "old");
  CHECK(names_in(folder.path()) == Names{"out"});
}

TEST_CASE("nothing is written through a link, into a folder, a pipe or a device") {
  const TemporaryFolder folder;
  spill(folder.file("outside"), "old");
  std::filesystem::create_symlink("outside", folder.file("link"));
  std::filesystem::create_symlink("nowhere", folder.file("dangling"));
  std::filesystem::create_directory(folder.file("folder"));
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  for (const char* name : {"link", "dangling", "folder", "pipe"}) {
    INFO(name);
    const std::string path = folder.file(name);
    CHECK(contains(message_of<RuntimeError>([&] { write_file(path, "new"); }), path));
  }
  CHECK(contains(message_of<RuntimeError>([&] { write_file("/dev/null", "new"); }), "/dev/null"));
  CHECK(slurp(folder.file("outside")) == "old");
  CHECK(names_in(folder.path()) == Names{"outside", "link", "dangling", "folder", "pipe"});
}

TEST_CASE("writers of one file at once leave one of their texts whole") {
  const TemporaryFolder folder;
  const std::string path = folder.file("out");
  std::vector<std::thread> writers;
  for (char letter = 'a'; letter < 'i'; ++letter) {
    writers.emplace_back([&path, letter] { write_file(path, std::string(100000, letter)); });
  }
  for (std::thread& writer : writers) writer.join();
  const std::string text = slurp(path);
  REQUIRE(text.size() == 100000);
  CHECK(text == std::string(100000, text[0]));
  CHECK(names_in(folder.path()) == Names{"out"});
}

TEST_CASE("read_file gives every byte and refuses what it cannot read") {
  const TemporaryFolder folder;
  std::string bytes;
  for (int i = 0; i < 200000; ++i) bytes += static_cast<char>(i * 7);
  spill(folder.file("bytes"), bytes);
  spill(folder.file("empty"), "");
  CHECK(read_file(folder.file("bytes")) == bytes);
  CHECK(read_file(folder.file("empty")).empty());
  CHECK(contains(read_file("/proc/self/status"), "Threads:"));  // its size reads as 0
  const std::string message = message_of<DataError>([&] { read_file(folder.file("none")); });
  CHECK(contains(message, folder.file("none")));
  CHECK(contains(message, "No such file or directory"));
  CHECK(contains(message_of<DataError>([&] { read_file(folder.path()); }), "it is a folder"));
  // Neither blocks: a pipe without a writer, a device without an end.
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK(contains(message_of<DataError>([&] { read_file(folder.file("pipe")); }), "not a regular file"));
  CHECK(contains(message_of<DataError>([&] { read_file("/dev/zero"); }), "not a regular file"));
  // The limit holds before memory is taken, and for files whose size reads as 0.
  CHECK(read_file(folder.file("bytes"), 200000) == bytes);
  CHECK(contains(message_of<DataError>([&] { read_file(folder.file("bytes"), 199999); }), "199999"));
  CHECK(contains(message_of<DataError>([&] { read_file("/proc/self/status", 10); }), "at most 10"));
  spill(folder.file("sparse"), "");
  std::filesystem::resize_file(folder.file("sparse"), uint64_t{1} << 40);
  CHECK(
      contains(message_of<DataError>([&] { read_file(folder.file("sparse"), 1 << 20); }), "at most 1048576"));
}

TEST_CASE("make_directories makes parents and minds what is there") {
  const TemporaryFolder folder;
  make_directories(folder.file("a/b/c"));
  CHECK(std::filesystem::is_directory(folder.file("a/b/c")));
  CHECK_NOTHROW(make_directories(folder.file("a/b/c")));
  make_directories(folder.file("a/d/"));
  CHECK(std::filesystem::is_directory(folder.file("a/d")));
  spill(folder.file("file"), "");
  CHECK(contains(message_of<RuntimeError>([&] { make_directories(folder.file("file")); }), "File exists"));
  CHECK(contains(message_of<RuntimeError>([&] { make_directories(folder.file("file/x")); }),
                 folder.file("file")));
}

TEST_CASE("stale temporaries go, everything else stays") {
  const TemporaryFolder folder;
  const Names others{"out",       ".hax-0123456789abcdef0123456789abcdeg.tmp", ".hax-0123.tmp",
                     ".hax-.tmp", "hax-0123456789abcdef0123456789abcdef.tmp",  stale_name + ".bak"};
  for (const std::string& name : others) spill(folder.file(name), "kept");
  spill(folder.file(stale_name), "left over");
  std::filesystem::create_directory(folder.file(".hax-ffffffffffffffffffffffffffffffff.tmp"));
  std::filesystem::create_symlink("out", folder.file(".hax-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee.tmp"));
  AtomicFile living(folder.file("late"));
  living.write("still being written");

  remove_stale_temporaries(folder.path());
  Names left = names_in(folder.path());
  CHECK_FALSE(left.contains(stale_name));
  CHECK(left.size() == others.size() + 3);  // the folder, the link and the living file
  for (const std::string& name : others) CHECK(left.contains(name));
  living.commit();
  CHECK(slurp(folder.file("late")) == "still being written");
  CHECK_NOTHROW(remove_stale_temporaries(folder.file("no such folder")));
}

TEST_CASE("what a killed process left is found and removed") {
  const TemporaryFolder folder;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    AtomicFile file(folder.file("out"));
    file.write("half");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(names_in(folder.path()).size() == 1);
  remove_stale_temporaries(folder.path());
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("checksums are XXH3-128, whole or in pieces") {
  const auto of = [](std::string_view text) { return checksum(as_bytes(text)); };
  CHECK(of("") == "99aa06d3014798d86001c324468d497f");
  CHECK(of("a") == "a96faf705af16834e6c632b61e964e1f");
  CHECK(of("abc") == "06b05ab6733a618578af5f94892f3950");

  std::string bytes;
  for (int i = 0; i < 10000; ++i) bytes += static_cast<char>(i * i >> 3);
  for (const size_t piece : {1, 63, 256, 4096, 10000}) {
    Checksum pieces;
    for (size_t at = 0; at < bytes.size(); at += piece) pieces.update(as_bytes(bytes.substr(at, piece)));
    CHECK(pieces.hex() == of(bytes));
    CHECK(pieces.hex() == of(bytes));
  }
  std::string flipped = bytes;
  flipped[5000] ^= 1;
  CHECK(of(flipped) != of(bytes));
}

}  // namespace
}  // namespace hax
