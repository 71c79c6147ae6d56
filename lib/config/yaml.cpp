#include "lib/config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <sstream>

#include "lib/config/fields.h"

namespace hax {
namespace {

// yaml-cpp takes the end of the text for a closing quotation mark. This comment stands behind every text,
// so a scalar that swallowed it was never closed.
constexpr std::string_view kEndComment = "#\x01 end of text";

struct Stop {};  // the rest of the text is not worth reading

// Builds the tree from the parser's events, which come in document order.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::vector<YamlProblem>& problems) : problems_(problems) {}

  YamlNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) {
      complain(mark, "a second document begins here; a file holds one mapping, split it into two files");
      throw Stop{};
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(YamlNode::Kind::null, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    complain(mark, "an alias (*name) is refused; write the value out, or share it through an include");
    YamlNode node = make(YamlNode::Kind::null, mark, "", 0);
    node.refused = true;
    add(std::move(node));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = make(YamlNode::Kind::scalar, mark, tag, anchor);
    node.quoted = tag == "!";
    node.text = value;
    if (value.find(kEndComment) != std::string::npos) {
      complain(mark, "a quotation mark is opened here and never closed");
      throw Stop{};
    }
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::sequence, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(YamlNode::Kind::map, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  // A collection under construction; of a map, also the key that waits for its value.
  struct Frame {
    YamlNode node;
    bool has_key = false;
    YamlNode key;
  };

  void complain(const YAML::Mark& mark, std::string message) {
    problems_.push_back({mark.line + 1, std::move(message)});
  }

  YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    if (anchor != 0) complain(mark, "an anchor (&name) is refused; share values through an include");
    if (!tag.empty() && tag != "?" && tag != "!") {
      complain(mark, "the tag " + shown(tag) + " is refused; the key alone decides the type, delete the tag");
      node.refused = true;
    }
    return node;
  }

  void open(YamlNode node) {
    if (stack_.size() >= static_cast<size_t>(kMaxYamlDepth)) {
      problems_.push_back({node.line, "nested deeper than " + std::to_string(kMaxYamlDepth) +
                                          " levels; no setting lies so deep"});
      throw Stop{};
    }
    stack_.push_back({std::move(node), false, {}});
  }
  void close() {
    YamlNode node = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(node));
  }
  void add(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = stack_.back();
    if (frame.node.kind == YamlNode::Kind::sequence) {
      frame.node.items.push_back(std::move(node));
    } else if (!frame.has_key) {
      frame.key = std::move(node);
      frame.has_key = true;
    } else {
      if (node.kind == YamlNode::Kind::null) node.line = frame.key.line;  // its mark is the next token's
      frame.node.entries.push_back({std::move(frame.key), std::move(node)});
      frame.has_key = false;
    }
  }

  std::vector<YamlProblem>& problems_;
  int documents_ = 0;
  std::vector<Frame> stack_;
  YamlNode root_;
};

int line_of(std::string_view text, size_t position) {
  return 1 + static_cast<int>(
                 std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(position), '\n'));
}

// Length of the UTF-8 sequence at the front of `text`; 0 where it is not one (overlong forms, surrogates
// and code points beyond U+10FFFF included).
size_t utf8_length(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t first = at(0);
  const size_t length = first < 0x80       ? 1
                        : first >> 5 == 6  ? 2
                        : first >> 4 == 14 ? 3
                        : first >> 3 == 30 ? 4
                                           : 0;
  if (length == 0 || text.size() < length) return 0;
  if (length == 1) return 1;
  uint32_t code = first & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if (at(i) >> 6 != 2) return 0;
    code = code << 6 | (at(i) & 0x3f);
  }
  constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < smallest[length] || code > 0x10ffff || surrogate ? 0 : length;
}

std::string hexadecimal(char c) {
  char buffer[8];
  std::snprintf(buffer, sizeof(buffer), "0x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
  return buffer;
}

// What yaml-cpp's commonest messages mean to who wrote the file.
std::string hint(const std::string& message) {
  namespace msg = YAML::ErrorMsg;
  if (message == msg::END_OF_SEQ_FLOW) return "; a list [...] lacks its bracket or a comma";
  if (message == msg::END_OF_MAP_FLOW) return "; a mapping {...} lacks its brace or a comma";
  if (message == msg::END_OF_MAP || message == msg::END_OF_SEQ)
    return "; does the indentation match the lines above?";
  if (message == msg::MAP_VALUE) return "; does the indentation match, and is text that holds ': ' quoted?";
  if (message == msg::EOF_IN_SCALAR) return "; a quotation mark is never closed";
  return "";
}

// Whether the text may go to the parser at all; says why not.
bool acceptable(std::string_view text, std::vector<YamlProblem>& problems) {
  if (text.size() > kMaxYamlBytes) {
    problems.push_back({0, "has " + std::to_string(text.size()) + " bytes, more than the " +
                               std::to_string(kMaxYamlBytes) +
                               " of the largest config; is it another kind of file?"});
    return false;
  }
  size_t position = 0;
  const std::string fault = text_fault(text, true, &position);
  if (!fault.empty()) {
    problems.push_back({line_of(text, position), fault + "; write plain UTF-8 text"});
    return false;
  }
  bool good = true;
  int line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content = text.substr(begin, end - begin);
    ++line;
    const size_t start = content.find_first_not_of(" \t");
    if (start != std::string_view::npos && content[start] != '#' &&
        content.substr(0, start).find('\t') != std::string_view::npos) {
      problems.push_back({line, "a tab in the indentation; indent with spaces"});
      good = false;
    }
    if (!content.empty() && content[0] == '%') {
      problems.push_back({line, "a YAML directive (%) is refused; delete the line"});
      good = false;
    }
    begin = end + 1;
  }
  return good;
}

}  // namespace

std::string text_fault(std::string_view text, bool multiline, size_t* position) {
  for (size_t i = 0; i < text.size();) {
    if (position != nullptr) *position = i;
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    const bool allowed = multiline && (c == '\n' || c == '\t');
    if ((byte < 0x20 && !allowed) || byte == 0x7f) return "a control character (byte " + hexadecimal(c) + ")";
    const size_t length = utf8_length(text.substr(i));
    if (length == 0) return "a byte that is not UTF-8 (" + hexadecimal(c) + ")";
    i += length;
  }
  return "";
}

std::string shown(std::string_view text) {
  constexpr size_t limit = 60;
  if (text.size() <= limit) return quote(text);
  size_t cut = limit;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) >> 6) == 2) --cut;  // not inside a UTF-8 sequence
  return quote(text.substr(0, cut)) + "...";
}

YamlNode parse_yaml(std::string_view text, std::vector<YamlProblem>& problems) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  std::string unix_text;
  unix_text.reserve(text.size() + kEndComment.size() + 2);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') unix_text += text[i];
  }
  if (!acceptable(unix_text, problems)) return {};
  const int last_line = line_of(unix_text, std::min(unix_text.find_last_not_of(" \n") + 1, unix_text.size()));
  unix_text.append("\n").append(kEndComment).append("\n");

  std::istringstream stream(unix_text);
  TreeBuilder builder(problems);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop&) {
    return {};
  } catch (const YAML::Exception& e) {
    problems.push_back({std::clamp(e.mark.line + 1, 1, last_line), "not valid YAML: " + e.msg + hint(e.msg)});
    return {};
  }
  return builder.take_root();
}

}  // namespace hax
