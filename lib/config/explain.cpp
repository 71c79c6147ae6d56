// `hax config explain` and docs/configuration.md.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/config/fields.h"
#include "lib/config/nearest.h"
#include "lib/config/write.h"
#include "lib/config/yaml.h"

namespace hax {
namespace {

const std::string& key_of(const Entry& entry) {
  const auto* field = std::get_if<Field>(&entry);
  return field != nullptr ? field->key : std::get<Section>(entry).key;
}

std::string parent_of(const std::string& key) {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

// "number > 0" and "integer, 1 <= x <= 1000".
std::string type_and_range(const Field& field) {
  const std::string range = field.range.text();
  if (range.empty()) return field.type();
  if (std::holds_alternative<std::string*>(field.value)) {
    return field.type() + " of at most " + std::to_string(static_cast<int64_t>(field.range.high)) + " bytes";
  }
  return field.type() + (range.find('x') == std::string::npos ? " " : ", ") + range;
}

std::string explain_field(const Field& field) {
  std::string text = field.key + "\n  " + field.help + "\n  type     " + field.type() + "\n";
  const std::string range = field.range.text();
  if (std::holds_alternative<std::string*>(field.value)) {
    text += "  length   at most " + std::to_string(static_cast<int64_t>(field.range.high)) + " bytes\n";
  } else if (!range.empty()) {
    text += "  range    " + range + "\n";
  }
  if (*field.unit != '\0') text += std::string("  unit     ") + field.unit + "\n";
  return text + "  default  " + field.text() + "\n";
}

// Keys of a section and of the sections inside it, with defaults and help in columns.
std::string explain_section(const std::string& key, const std::vector<Entry>& entries) {
  std::string text;
  size_t key_width = 0, default_width = 0;
  std::vector<const Entry*> inside;
  for (const Entry& entry : entries) {
    const std::string& name = key_of(entry);
    if (name == key) text = name + "\n  " + std::get<Section>(entry).help + "\n";
    if (!key.empty() && !name.starts_with(key + ".")) continue;
    inside.push_back(&entry);
    key_width = std::max(key_width, name.size());
    if (const auto* field = std::get_if<Field>(&entry))
      default_width = std::max(default_width, field->text().size());
  }
  for (const Entry* entry : inside) {
    const auto* field = std::get_if<Field>(entry);
    std::string name = key_of(*entry), value = field != nullptr ? field->text() : "";
    name.resize(key_width, ' ');
    value.resize(default_width, ' ');
    text += "  " + name + "  " + value + "  " +
            (field != nullptr ? field->help : std::get<Section>(*entry).help) + "\n";
  }
  return text;
}

const char* const kIntroduction =
    R"(<!-- Written by `hax config explain --markdown`; change lib/config/fields.cpp instead. -->
# Configuration

A configuration is made of layers, each over the one before: the defaults below, then the YAML files in the
order they are given, then every `--set key=value`, whose value is YAML:

    --set train.lr=1e-3 --set 'model.sparse.patterns=[lsh, key_selection]'

A file is one mapping of the keys below, nested by section; an empty file changes nothing. Its top-level
key `include`, a path or a list of paths relative to the file, names files that are applied before its own
keys, so that a file states only what it changes:

    include: base.yaml
    model:
      sparse:
        patterns: [lsh, key_selection]

`hax config explain KEY` prints one key or section.

What is not understood is refused, with file, line and key, all problems at once:

- unknown and repeated keys, values of another type, out of range, or empty;
- integers are plain decimal digits (`1000`, not `1e3`, `1_000`, `0x10` or `010`);
- numbers are decimal and finite (`0.002`, `2e-3`, `1`); booleans are `true` and `false` alone;
- text that reads as a number or a boolean needs quotation marks (`name: "64"`);
- anchors, aliases, merge keys, tags, directives, further documents, and tabs in the indentation;
- combinations that cannot work, such as heads that do not divide the width.
)";

}  // namespace

std::string explain(const std::string& key) {
  Config defaults;
  const std::vector<Entry> entries = entries_of(defaults);
  if (key.empty()) return explain_section(key, entries);
  std::vector<std::string> known;
  for (const Entry& entry : entries) {
    if (key_of(entry) == key) {
      const auto* field = std::get_if<Field>(&entry);
      return field != nullptr ? explain_field(*field) : explain_section(key, entries);
    }
    known.push_back(key_of(entry));
  }
  const std::string meant = nearest_key(key, known);
  throw UsageError(
      "config explain: unknown key " + shown(key) + "; " +
      (meant.empty() ? "`hax config explain` lists the known ones" : "did you mean " + meant + "?"));
}

std::string configuration_markdown() {
  Config defaults;
  const std::vector<Entry> entries = entries_of(defaults);
  std::string text = kIntroduction;
  const auto table = [&](const std::string& section) {
    text += "\n| key | type | unit | default | meaning |\n|---|---|---|---|---|\n";
    for (const Entry& entry : entries) {
      const auto* field = std::get_if<Field>(&entry);
      if (field == nullptr || parent_of(field->key) != section) continue;
      text += "| `" + std::string(field->leaf()) + "` | " + type_and_range(*field) + " | " + field->unit +
              " | `" + field->text() + "` | " + field->help + " |\n";
    }
  };
  text += "\n## Top level\n";
  table("");
  for (const Entry& entry : entries) {
    const auto* section = std::get_if<Section>(&entry);
    if (section == nullptr) continue;
    text += "\n## `" + section->key + "`\n\n" + section->help + "\n";
    table(section->key);
  }
  return text;
}

}  // namespace hax
