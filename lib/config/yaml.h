// Strict reading of YAML text into a small tree that knows line numbers. What makes a configuration
// ambiguous is refused here: anchors, aliases, tags, directives, further documents, tabs in indentation,
// deep nesting, control characters, text that is not UTF-8, quotation marks that are never closed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hax {

struct YamlEntry;

struct YamlNode {
  enum class Kind { null, scalar, sequence, map };
  Kind kind = Kind::null;
  int line = 0;                    // from 1
  bool quoted = false;             // a scalar in quotation marks or a block scalar: always text
  bool refused = false;            // an alias or a tagged value, already reported
  std::string text;                // of a scalar
  std::vector<YamlNode> items;     // of a sequence
  std::vector<YamlEntry> entries;  // of a map, in order, duplicates included
};

struct YamlEntry {
  YamlNode key, value;
};

struct YamlProblem {
  int line = 0;  // 0: the text as a whole
  std::string message;
};

inline constexpr size_t kMaxYamlBytes = 262144;
inline constexpr int kMaxYamlDepth = 16;

// Returns the root (null for text without content) and appends what is wrong to `problems`. After a
// syntax error the root is null. Line ends "\r\n" and a UTF-8 byte order mark are accepted.
YamlNode parse_yaml(std::string_view text, std::vector<YamlProblem>& problems);

// Empty where the text is UTF-8 without control characters, else what is wrong with it and where.
// Tabs and line ends are allowed where `multiline` is set.
std::string text_fault(std::string_view text, bool multiline, size_t* position = nullptr);

// A value for a message: in quotation marks, escaped, cut after 60 bytes.
std::string shown(std::string_view text);

}  // namespace hax
