// A configuration from layers: defaults < files in the given order < settings key=value.
//
// A file is one YAML mapping of the keys in docs/configuration.md (empty is fine). Its top-level key
// `include`, a path or a list of paths relative to the file, names files that are applied before its own
// keys. A setting's value is YAML: model.sparse.patterns=[lsh,key_selection].
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"

namespace hax {

// Throws UsageError that lists every problem of all layers, one a line:
//   file:line: key: what was found; what would do
// Impossible combinations (lib/config/check.h) stand at the last layer that set one of their keys.
Config load_config(const std::vector<std::string>& files, const std::vector<std::string>& sets);

// A configuration from one text without includes: the resolved config of a run or checkpoint. `origin` names
// it in messages.
Config parse_config(const std::string& text, const std::string& origin);

}  // namespace hax
