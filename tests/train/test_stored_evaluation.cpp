// Evaluations that a run folder keeps: which are believed.
#include <nlohmann/json.hpp>

#include "lib/train/stored_evaluation.h"
#include "tests/catch.h"
#include "tests/stderr.h"
#include "tests/support.h"
#include "tests/train/toy_source.h"

namespace hax::test {

TEST_CASE("no bit of a stored evaluation can change unnoticed, and one without a checksum is not believed") {
  const TemporaryFolder folder;
  const RunFolder run = RunFolder::create_or_resume(folder.path() + "/run", toy_config());
  const StoredEvaluation kept = {"data (test)", "f00d", "c0ffee", 30, 0.075, 1.5e-3, 2.25, 40, 0};
  const std::string path = run.path() + "/eval-f00d.json";
  std::string said;
  const auto read = [&](const std::string& checkpoint = "c0ffee") {
    std::optional<StoredEvaluation> found;
    said = stderr_of([&] { found = read_evaluation(run, "f00d", checkpoint); });
    return found;
  };
  CHECK_FALSE(read());
  write_evaluation(run, kept);
  REQUIRE(read());
  CHECK((said == "" && read()->accuracy == 0.075 && read()->loss == 2.25 && read()->seen == 0));
  CHECK((!read("of another step") && said == ""));

  const std::string text = slurp(path);
  REQUIRE(contains(text, "\"accuracy\": 0.075"));
  std::string changed = text;
  changed.replace(text.find("0.075"), 5, "0.975");
  spill(path, changed);
  CHECK_FALSE(read());
  CHECK(
      contains(said, path + ": damaged: checksum is not that of the other keys; the run is evaluated again"));
  for (size_t i = 0; i < text.size(); ++i) {
    for (const int bit : {0, 3, 6}) {
      changed = text;
      changed[i] = static_cast<char>(changed[i] ^ 1 << bit);
      spill(path, changed);
      CAPTURE(i, bit);
      // White space may turn into other white space.
      const auto found = read();
      CHECK(((found && found->accuracy == 0.075 && found->step == 30) || (!found && contains(said, path))));
    }
  }

  nlohmann::json without = nlohmann::json::parse(text);
  without.erase("checksum");
  spill(path, without.dump());
  CHECK_FALSE(read());
  CHECK(contains(said, path + ": carries no checksum"));
  for (const char* other : {"", "[]", "{"}) {
    spill(path, other);
    CHECK_FALSE(read());
    CHECK(contains(said, path + ": damaged: "));
  }
  write_evaluation(run, kept);
  CHECK((read() && said == ""));
}

}  // namespace hax::test
