// What a check found, and a list of them for people and programs.
#pragma once

#include <string>
#include <vector>

namespace hax {

enum class Verdict {
  pass,
  fail,
  expected_failure,  // fails by the definition of the model's mode, as it should
  skipped,           // has no meaning for this model; `detail` says why
};
std::string_view verdict_name(Verdict verdict);  // "pass", "FAIL", "expected to fail", "skipped"

struct CheckResult {
  std::string name;  // "causality"
  Verdict verdict = Verdict::pass;
  std::string detail;  // what was compared and how far apart it was; what is wrong, where, and why
};

// Nothing failed that should have passed.
bool all_as_expected(const std::vector<CheckResult>& results);

// One line a check, and a line that counts them.
std::string as_text(const std::vector<CheckResult>& results);
// {"ok": .., "checks": [{"name": .., "verdict": "pass" | "fail" | "expected_failure" | "skipped", "detail":
// ..}]}
std::string as_json(const std::vector<CheckResult>& results);

}  // namespace hax
