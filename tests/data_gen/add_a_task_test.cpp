// docs/add_a_task.md names the places that know each task: they exist, and every task stands in each of them.
#include <filesystem>
#include <regex>

#include "lib/base/files.h"
#include "lib/config/fields.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"
#include "tests/data_gen/tasks.h"

using namespace hax;
using hax::test::every_task;
using hax::test::mentions;

namespace {

const std::string kRoot = std::string(HAX_SOURCE_DIR) + "/";

struct Step {
  std::vector<std::string> files;  // <task> stands for a task's name
  std::string what;
};

// The rows of the document's table.
std::vector<Step> steps() {
  std::vector<Step> result;
  const std::string text = read_file(kRoot + "docs/add_a_task.md");
  const std::regex row("\n\\| (`[^|]*`) \\| ([^|\n]*) \\|");
  const std::regex name("`([^`]+)`");
  for (std::sregex_iterator it(text.begin(), text.end(), row), end; it != end; ++it) {
    Step step;
    step.what = (*it)[2];
    const std::string files = (*it)[1];
    for (std::sregex_iterator file(files.begin(), files.end(), name); file != end; ++file) {
      step.files.push_back((*file)[1]);
    }
    result.push_back(step);
  }
  return result;
}

std::string for_task(std::string file, const std::string& task) {
  const size_t at = file.find("<task>");
  return at == std::string::npos ? file : file.replace(at, 6, task);
}

}  // namespace

TEST_CASE("adding a task: every place in the document knows every task") {
  const std::vector<Step> all = steps();
  REQUIRE(all.size() == 11);
  for (TaskKind kind : every_task()) {
    const std::string task(name_of(kind));
    for (const Step& step : all) {
      for (const std::string& file : step.files) {
        // The quick set of joint recall is named for its size.
        std::string path = kRoot + for_task(file, task);
        if (kind == TaskKind::joint_recall && file.starts_with("configs/")) {
          path = kRoot + "configs/quick/data_joint_recall_4x4.yaml";
        }
        INFO(task << " in " << path);
        REQUIRE(std::filesystem::exists(path));
        // Files of the task's own need not name it, nor need the test that changes every field by its place.
        if (file.find("<task>") != std::string::npos || file == "tests/config/write_test.cpp") continue;
        CHECK(mentions(read_file(path), task));
      }
    }
  }
}

TEST_CASE("adding a task: the names in the document are those of the files") {
  for (const Step& step : steps()) {
    const std::regex name("`([A-Za-z_]+)(\\(\\))?`");
    std::string text;
    for (const std::string& file : step.files) text += read_file(kRoot + for_task(file, "induction_heads"));
    for (std::sregex_iterator it(step.what.begin(), step.what.end(), name), end; it != end; ++it) {
      INFO((*it)[1] << " in " << step.files[0]);
      CHECK(mentions(text, (*it)[1]));
    }
  }
}

TEST_CASE("adding a task: every task has a section with documented fields") {
  Config config;
  for (TaskKind kind : every_task()) {
    const std::string section = "task." + std::string(name_of(kind)) + ".";
    int fields = 0;
    for (const Field& field : fields_of(config)) fields += field.key.starts_with(section) ? 1 : 0;
    INFO(section);
    CHECK(fields >= 2);
  }
}
