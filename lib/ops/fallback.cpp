#include "lib/ops/fallback.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "lib/base/log.h"

namespace hax::ops {
namespace {

struct Known {
  std::mutex mutex;
  std::set<std::string> told;
  std::vector<FallbackWatch*> watches;
};

Known& known() {
  static Known instance;
  return instance;
}

}  // namespace

Refusal first_refusal(std::initializer_list<Refusal> refusals) {
  for (const Refusal& refusal : refusals) {
    if (!refusal.empty()) return refusal;
  }
  return {};
}

Refusal above(const char* name, int64_t value, int64_t largest) {
  if (value <= largest) return {};
  return std::string(name) + " " + std::to_string(value) + " is above " + std::to_string(largest);
}

Refusal other_dtype(const char* name, at::ScalarType found, std::initializer_list<at::ScalarType> taken) {
  if (std::find(taken.begin(), taken.end(), found) != taken.end()) return {};
  std::string wanted;
  for (const auto type : taken) wanted += (wanted.empty() ? "" : " or ") + std::string(at::toString(type));
  return std::string(name) + " is " + at::toString(found) + ", not " + wanted;
}

void note_fallback(const char* op, at::Device device, const Refusal& refusal) {
  const std::string text = std::string(op) + ": " + refusal;
  bool first = false;
  {
    const std::lock_guard lock(known().mutex);
    for (FallbackWatch* watch : known().watches) watch->seen_.insert(text);
    first = device.is_cuda() && known().told.insert(text).second;
  }
  if (first) log::info(text + ", so its composite path runs (slower)");
}

FallbackWatch::FallbackWatch() {
  const std::lock_guard lock(known().mutex);
  known().watches.push_back(this);
}

FallbackWatch::~FallbackWatch() {
  const std::lock_guard lock(known().mutex);
  auto& watches = known().watches;
  watches.erase(std::find(watches.begin(), watches.end(), this));
}

std::set<std::string> FallbackWatch::seen() const {
  const std::lock_guard lock(known().mutex);
  return seen_;
}

}  // namespace hax::ops
