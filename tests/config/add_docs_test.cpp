// docs/add_a_mixer.md and docs/add_a_pattern.md name files and symbols: they exist, and every mixer and
// pattern stands in the places that the documents send a new one to.
#include <filesystem>
#include <regex>

#include "lib/base/files.h"
#include "lib/config/names.h"
#include "tests/catch.h"

namespace hax {
namespace {

const std::string kRoot = std::string(HAX_SOURCE_DIR) + "/";

std::vector<std::string> quoted(const std::string& document) {
  const std::string text = read_file(kRoot + document);
  const std::regex name("`([^`]+)`");
  std::vector<std::string> names;
  for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it)
    names.push_back((*it)[1]);
  return names;
}

template <class E>
void check_places(const std::string& type, const std::vector<std::string>& places) {
  for (const std::string& place : places) {
    const std::string text = read_file(kRoot + place);
    for (const auto& entry : enum_names<E>) {
      INFO(entry.name << " in " << place);
      CHECK(text.find(type + "::" + std::string(entry.name)) != std::string::npos);
    }
  }
}

}  // namespace

TEST_CASE("adding a mixer or a pattern: what the documents name is there") {
  const std::regex path("[a-z_0-9./]*/[a-z_0-9./]+");
  const std::regex symbol("[A-Z][A-Za-z]+|[a-z_]+_[a-z_]+");
  for (const std::string document : {"docs/add_a_mixer.md", "docs/add_a_pattern.md"}) {
    std::string sources;
    std::vector<std::string> symbols;
    for (const std::string& name : quoted(document)) {
      if (name.find("yours") != std::string::npos) continue;
      INFO(document << ": " << name);
      if (std::regex_match(name, path)) {
        REQUIRE(std::filesystem::exists(kRoot + name));
        if (std::filesystem::is_regular_file(kRoot + name)) sources += read_file(kRoot + name);
      } else if (std::regex_match(name, symbol)) {
        symbols.push_back(name);
      }
    }
    CHECK(symbols.size() >= 5);
    for (const std::string& name : symbols) {
      INFO(document << ": " << name);
      CHECK(sources.find(name) != std::string::npos);
    }
  }
}

TEST_CASE("adding a mixer or a pattern: every one stands in every place") {
  check_places<MixerKind>("MixerKind", {"lib/config/names.h", "lib/model/mixer.cpp"});
  check_places<PatternKind>(
      "PatternKind", {"lib/config/names.h", "lib/model/sparse_branch.cpp", "lib/model/pattern_memory.cpp"});
}

}  // namespace hax
