// What the program must never do, read off its own sources: start programs or shells, talk to a network,
// load code, or use calls that overrun buffers or guess names of temporary files.
#include <algorithm>
#include <regex>

#include "tests/catch.h"
#include "tests/support.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

// The text without comments and without what stands in quotation marks, lines kept.
std::string code_of(const std::string& text) {
  std::string code;
  enum class In { code, line, block, quotes, apostrophes } in = In::code;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i], next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (c == '\n') {
      code += c;
      if (in == In::line) in = In::code;
    } else if (in == In::code) {
      if (c == '/' && next == '/') in = In::line;
      if (c == '/' && next == '*') in = In::block;
      // An apostrophe between digits divides them.
      const bool divides = i > 0 && std::isalnum(static_cast<unsigned char>(text[i - 1])) != 0;
      if (c == '"') in = In::quotes;
      if (c == '\'' && !divides) in = In::apostrophes;
      if (in == In::code) code += c;
    } else if (in == In::block) {
      if (c == '*' && next == '/') in = In::code, ++i;
    } else if (in == In::quotes || in == In::apostrophes) {
      if (c == '\\') ++i;
      if (c == (in == In::quotes ? '"' : '\'')) in = In::code;
    }
  }
  return code;
}

std::vector<std::string> findings(const std::string& text) {
  static const std::regex rules(
      "\\b(system|popen|execl|execle|execlp|execv|execve|execvp|execvpe|fork|vfork|posix_spawn|posix_spawnp|"
      "dlopen|dlmopen|dlsym|socket|connect|bind|listen|accept|getaddrinfo|gethostbyname|tmpnam|mktemp|"
      "tempnam|gets|strcpy|strcat|sprintf|vsprintf|strtok|rand|srand)\\s*\\(|"
      "torch::(load|pickle_load|jit)|sys/socket\\.h|netdb\\.h|torch/script\\.h");
  const std::string code = code_of(text);
  std::vector<std::string> found;
  for (std::sregex_iterator at(code.begin(), code.end(), rules), end; at != end; ++at) {
    const auto line = std::count(code.begin(), code.begin() + at->position(), '\n') + 1;
    found.push_back(std::to_string(line) + ": " + at->str());
  }
  return found;
}

TEST_CASE("no shell, no network, no code from files, no unsafe call in the sources") {
  int files = 0;
  for (const char* folder : {"lib", "apps", "data_gen"}) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(HAX_SOURCE_DIR) / folder)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".cpp" && extension != ".h" && extension != ".cu") continue;
      ++files;
      INFO(entry.path().string());
      std::vector<std::string> found = findings(test::slurp(entry.path().string()));
      // NVIDIA's driver is asked for its devices: the system's own library, by its fixed name.
      if (entry.path().filename() == "nvidia_driver.cpp") {
        CHECK(found.size() == 2);
        std::erase_if(found, [](const std::string& what) {
          return what.ends_with(" dlopen(") || what.ends_with(" dlsym(");
        });
      }
      CHECK(found == std::vector<std::string>{});
    }
  }
  CHECK(files > 100);
}

TEST_CASE("the rules see calls and pass over words") {
  CHECK(findings("int main() { system(\"ls\"); }").size() == 1);
  CHECK(findings("std::system (command);\nauto f = popen(a, b);").size() == 2);
  CHECK(findings("#include <sys/socket.h>").size() == 1);
  CHECK(findings("// system(\"ls\")\n/* fork() */ say(\"popen(\"); file_system(x); char c = '\"'; i = 1'000;")
            .empty());
}

}  // namespace
}  // namespace hax
