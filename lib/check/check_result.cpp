#include "lib/check/check_result.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace hax {
namespace {

struct Names {
  std::string_view text, json;
};

Names names(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return {"pass", "pass"};
    case Verdict::fail:
      return {"FAIL", "fail"};
    case Verdict::expected_failure:
      return {"expected to fail", "expected_failure"};
    case Verdict::skipped:
      return {"skipped", "skipped"};
  }
  throw std::invalid_argument("unknown verdict " + std::to_string(static_cast<int>(verdict)));
}

}  // namespace

std::string_view verdict_name(Verdict verdict) { return names(verdict).text; }

bool all_as_expected(const std::vector<CheckResult>& results) {
  return std::none_of(results.begin(), results.end(),
                      [](const CheckResult& result) { return result.verdict == Verdict::fail; });
}

std::string as_text(const std::vector<CheckResult>& results) {
  size_t width = 0;
  for (const auto& result : results) width = std::max(width, result.name.size());
  std::string text;
  const auto column = [&](std::string_view word, size_t columns) {
    text += word;
    text.append(columns + 2 - word.size(), ' ');
  };
  for (const auto& result : results) {
    column(verdict_name(result.verdict), verdict_name(Verdict::expected_failure).size());
    column(result.name, width);
    text += result.detail + "\n";
  }
  text += std::to_string(results.size()) + " checks";
  for (Verdict verdict : {Verdict::pass, Verdict::expected_failure, Verdict::skipped, Verdict::fail}) {
    const auto n = std::count_if(results.begin(), results.end(),
                                 [&](const CheckResult& result) { return result.verdict == verdict; });
    if (n > 0) text += ", " + std::to_string(n) + " " + std::string(verdict_name(verdict));
  }
  return text + "\n";
}

std::string as_json(const std::vector<CheckResult>& results) {
  nlohmann::ordered_json json = {{"ok", all_as_expected(results)}, {"checks", nlohmann::json::array()}};
  for (const auto& result : results) {
    json["checks"].push_back(
        {{"name", result.name}, {"verdict", names(result.verdict).json}, {"detail", result.detail}});
  }
  return json.dump(2) + "\n";
}

}  // namespace hax
