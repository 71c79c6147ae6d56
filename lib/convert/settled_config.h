// A config as far as a file settles it: what the file says goes in, and what was given otherwise is refused.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/config/config.h"

namespace hax {

class SettledConfig {
 public:
  // `source` names the file in messages. A field of `given` that still has its default counts as not given,
  // unless `given_by` names a file: then all of it was given, by that file.
  SettledConfig(const Config& given, std::string source, std::string given_by = "")
      : config_(given), source_(std::move(source)), given_by_(std::move(given_by)) {}

  // Refuse a field that was given another value: UsageError, or DataError where a file gave it.
  void set(const std::string& key, int64_t value);        // of an integer field: "model.d_state"
  void set_mixers(const std::vector<MixerKind>& layers);  // one a layer; sets model.layers too
  void propose(const std::string& key, int64_t value);    // does not refuse: what was given stands

  const Config& config() const { return config_; }
  const ModelConfig& model() const { return config_.model; }

 private:
  [[noreturn]] void refuse(const std::string& key, const std::string& given, const std::string& found) const;

  Config config_;
  std::string source_, given_by_;
};

}  // namespace hax
