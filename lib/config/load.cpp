#include "lib/config/load.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <system_error>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/config/check.h"
#include "lib/config/fields.h"
#include "lib/config/nearest.h"
#include "lib/config/value.h"
#include "lib/config/yaml.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxFiles = 100;        // includes of includes may multiply
constexpr size_t kMaxProblems = 100;  // a file of another kind can be wrong in every line

// Keys for messages: raw where they are plain, quoted where they hold anything odd.
std::string plain(const std::string& key) {
  const bool odd = key.empty() || key.size() > 100 ||
                   std::any_of(key.begin(), key.end(), [](char c) { return c <= ' ' || c >= 0x7f; });
  return odd ? shown(key) : key;
}

// Empty where `path` can be read as a text file, else what it is instead.
std::string file_fault(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  switch (status.type()) {
    case fs::file_type::regular:
      break;
    case fs::file_type::not_found:
      return "no such file; give the path of a YAML file";
    case fs::file_type::directory:
      return "is a folder; give the path of a YAML file in it";
    case fs::file_type::none:
      return "cannot be read: " + error.message();
    default:
      return "is not a regular file; write the YAML to a file first";
  }
  const uintmax_t size = fs::file_size(path, error);
  if (!error && size > kMaxYamlBytes) {
    return "has " + std::to_string(size) + " bytes, more than the " + std::to_string(kMaxYamlBytes) +
           " of the largest config; is it another kind of file?";
  }
  return "";
}

class Loader {
 public:
  Loader() {
    for (const Entry& entry : entries_of(config_)) {
      if (const auto* field = std::get_if<Field>(&entry)) {
        fields_.emplace(field->key, *field);
        known_.push_back(field->key);
      } else {
        sections_.insert(std::get<Section>(entry).key);
        known_.push_back(std::get<Section>(entry).key);
      }
    }
  }

  void add_file(const std::string& path, const std::string& asked_at) {
    const std::string fault = file_fault(path);
    if (!fault.empty())
      return complain(asked_at.empty() ? path : asked_at, asked_at.empty() ? fault : path + ": " + fault);
    if (++files_read_ > kMaxFiles) {
      if (files_read_ == kMaxFiles + 1)
        complain(path, "more than " + std::to_string(kMaxFiles) + " files are included");
      return;
    }
    const std::string identity = fs::weakly_canonical(path).string();
    for (size_t i = 0; i < open_.size(); ++i) {
      if (open_[i].first != identity) continue;
      std::string cycle;
      for (size_t j = i; j < open_.size(); ++j) cycle += open_[j].second + " -> ";
      return complain(asked_at, "a cycle: " + cycle + path + "; remove one of these includes");
    }
    std::string text;
    try {
      text = read_file(path);
    } catch (const Error& e) {
      return complain(path, e.what());
    }
    open_.emplace_back(identity, path);
    add_text(text, path);
    open_.pop_back();
  }

  void add_text(const std::string& text, const std::string& path) {
    const auto place = [path](int line) { return line > 0 ? path + ":" + std::to_string(line) : path; };
    place_ = place;
    const YamlNode root = parse(text);
    if (root.kind == YamlNode::Kind::map) {
      add_includes(root, path);
      place_ = place;  // the included files had theirs
      apply(root, "");
    } else if (root.kind != YamlNode::Kind::null && !root.refused) {
      complain(place_(root.line),
               "found " + found(root) +
                   "; a config is a mapping, write `key: value` with a space after the colon");
    }
  }

  void add_setting(const std::string& setting) {
    std::string place =
        "--set " + (setting.size() > 100 || !text_fault(setting, false).empty() ? shown(setting) : setting);
    place_ = [place](int) { return place; };
    const size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0) {
      return complain(
          place, "has no " + std::string(equals == 0 ? "key before '='" : "'='") + "; write --set key=value");
    }
    const size_t before = problems_.size();
    YamlNode value = parse(setting.substr(equals + 1));
    value.refused = problems_.size() > before;
    apply_entry(setting.substr(0, equals), value, 1);
  }

  Config finish() {
    for (const Violation& violation : violations(config_)) {
      // A field that could not be read holds another layer's value: what follows from that is no news.
      const auto& keys = violation.keys;
      if (std::any_of(keys.begin(), keys.end(), [&](const auto& key) { return unread_.count(key) > 0; }))
        continue;
      Setting last;
      for (const std::string& key : keys) {
        const auto it = set_.find(key);
        if (it != set_.end() && it->second.order > last.order) last = it->second;
      }
      complain(last.place, violation.message);
    }
    if (problems_.empty()) return config_;
    std::string message = problems_[0];
    for (size_t i = 1; i < problems_.size() && i < kMaxProblems; ++i) message += "\n" + problems_[i];
    if (problems_.size() > kMaxProblems) {
      message += "\nand " + std::to_string(problems_.size() - kMaxProblems) + " more problems";
    }
    throw UsageError(message);
  }

 private:
  struct Setting {
    int order = 0;
    std::string place = "default";
  };

  void complain(const std::string& place, const std::string& message) {
    problems_.push_back(place + ": " + message);
  }
  void complain(int line, const std::string& key, const std::string& message) {
    complain(place_(line), plain(key) + ": " + message);
  }

  YamlNode parse(std::string_view text) {
    std::vector<YamlProblem> found_problems;
    YamlNode root = parse_yaml(text, found_problems);
    for (const YamlProblem& problem : found_problems) complain(place_(problem.line), problem.message);
    return root;
  }

  void add_includes(const YamlNode& root, const std::string& path) {
    for (const auto& [key, value] : root.entries) {
      if (key.kind != YamlNode::Kind::scalar || key.text != "include") continue;
      const std::vector<YamlNode> listed =
          value.kind == YamlNode::Kind::sequence ? value.items : std::vector{value};
      for (const YamlNode& item : listed) {
        const std::string place = path + ":" + std::to_string(item.line) + ": include";
        if (item.refused) continue;
        if (item.kind != YamlNode::Kind::scalar || item.text.empty() ||
            !text_fault(item.text, false).empty()) {
          complain(place,
                   "found " + found(item) + "; needs a path or a list of paths, relative to this file");
          continue;
        }
        add_file((fs::path(path).parent_path() / item.text).lexically_normal().string(), place);
      }
      return;  // a second `include` is reported as a duplicate
    }
  }

  void apply(const YamlNode& map, const std::string& section) {
    std::map<std::string, int> lines;
    for (const auto& [key, value] : map.entries) {
      if (key.refused) continue;
      if (key.kind != YamlNode::Kind::scalar) {
        complain(place_(key.line), "found " + found(key) + " as a key; keys are names");
        continue;
      }
      const std::string path = section.empty() ? key.text : section + "." + key.text;
      const auto [first, fresh] = lines.emplace(key.text, key.line);
      if (!fresh) {
        complain(key.line, path,
                 "appears a second time, first in line " + std::to_string(first->second) + "; delete one");
        unread_.insert(path);
        continue;
      }
      if (section.empty() && key.text == "include" && !open_.empty()) continue;
      if (key.text.find('.') != std::string::npos && is_known(path)) {
        complain(key.line, path, "a dotted key works with --set alone; in YAML, nest the keys");
        continue;
      }
      apply_entry(path, value, key.line);
    }
  }

  void apply_entry(const std::string& key, const YamlNode& value, int line) {
    if (const auto it = fields_.find(key); it != fields_.end()) {
      std::vector<YamlProblem> found_problems;
      if (assign(it->second, value, found_problems)) {
        set_[key] = {++order_, place_(line)};
      } else {
        unread_.insert(key);
      }
      for (const YamlProblem& problem : found_problems) complain(problem.line, key, problem.message);
    } else if (sections_.count(key) > 0) {
      if (value.refused) return;
      if (value.kind == YamlNode::Kind::map) return apply(value, key);
      complain(line, key,
               "found " + found(value) + "; this is a section, " +
                   (value.kind == YamlNode::Kind::null ? "indent its keys under it or delete it"
                                                       : "needs a mapping of keys"));
    } else {
      complain_unknown(key, line);
    }
  }

  void complain_unknown(const std::string& key, int line) {
    if (key == "<<" || key.ends_with(".<<")) {
      return complain(line, key, "merge keys are refused; share values through an include");
    }
    if (key == "include" || key.ends_with(".include")) {
      return complain(line, key, "unknown key; include stands at the top level of a file");
    }
    const std::string meant = nearest_key(key, known_);
    complain(line, key,
             "unknown key; " + (meant.empty() ? "`hax config explain` lists the known ones"
                                              : "did you mean " + meant + "?"));
  }

  bool is_known(const std::string& key) const { return fields_.count(key) > 0 || sections_.count(key) > 0; }

  Config config_;
  std::map<std::string, Field> fields_;  // into config_
  std::set<std::string> sections_;
  std::vector<std::string> known_;
  std::function<std::string(int)> place_;                  // of a line of the layer being read
  std::vector<std::pair<std::string, std::string>> open_;  // files being read: identity, path
  int files_read_ = 0;
  std::map<std::string, Setting> set_;  // where each field was set last
  std::set<std::string> unread_;        // fields whose value was refused
  int order_ = 0;
  std::vector<std::string> problems_;
};

}  // namespace

Config load_config(const std::vector<std::string>& files, const std::vector<std::string>& sets) {
  Loader loader;
  for (const std::string& file : files) loader.add_file(file, "");
  for (const std::string& setting : sets) loader.add_setting(setting);
  return loader.finish();
}

Config parse_config(const std::string& text, const std::string& origin) {
  Loader loader;
  loader.add_text(text, origin);
  return loader.finish();
}

}  // namespace hax
