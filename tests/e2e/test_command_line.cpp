// The command line by itself: flags and subcommands that are misspelt or contradict, files that cannot be
// written.
#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {

TEST_CASE("a misspelt flag or subcommand gets the one that is near it", "[e2e]") {
  struct Case {
    std::vector<std::string> arguments;
    const char* advice;
  };
  for (const Case& c : {Case{{"train", "--ouut", "x"}, "--ouut: did you mean --out?"},
                        {{"train", "--out", "x", "--max-tme=3h"}, "--max-tme: did you mean --max-time?"},
                        {{"config", "explain", "--markdwon"}, "--markdwon: did you mean --markdown?"},
                        {{"trian"}, "trian: did you mean train?"}}) {
    CAPTURE(c.arguments);
    const auto result = run_hax(c.arguments);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK(contains(result.err, c.advice));
  }
  const auto far = run_hax({"train", "--out", "x", "--zzzzzzzz"});
  CHECK(far.status == 2);
  CHECK_FALSE(contains(far.err, "did you mean"));
}

TEST_CASE("-q and -v stand before the subcommand or behind it, one of them", "[e2e]") {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"-q", "config", "explain", "train.lr"},
        {"config", "-q", "explain", "train.lr"},
        {"config", "explain", "train.lr", "-v"}}) {
    CAPTURE(arguments);
    CHECK(run_hax(arguments).status == 0);
  }
  CHECK(run_hax({"-q", "config", "explain", "train.lr", "-v"}).status == 2);
  CHECK(run_hax({"--json"}).status == 2);  // belongs to --version
}

TEST_CASE("a table that cannot be written is refused before any work", "[e2e]") {
  const TemporaryFolder folder;
  const std::string missing = folder.file("none");
  const auto result =
      run_hax({"eval", "--run", "no run", "--data", "no data", "--out", missing + "/table.md"});
  CHECK(result.status == 2);
  CHECK(contains(result.err,
                 "--out " + missing + "/table.md: there is no folder " + missing + "; make it first"));
}

}  // namespace hax::test
