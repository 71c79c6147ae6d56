#include "data_gen/text_example.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "lib/base/json.h"

namespace hax {
namespace {

// Parses a line of exactly `length` integers of [0, bound); returns the fault, or "".
std::string parse_line(const std::string& line, int64_t length, int64_t bound, const char* what,
                       std::vector<int32_t>& out) {
  out.clear();
  const char* at = line.data();
  const char* const end = at + line.size();
  while (static_cast<int64_t>(out.size()) <= length) {
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(at, end, number);
    if (error != std::errc() || (stop != end && *stop != ' ')) {
      const char* const word_end = std::find(at, end, ' ');
      return "column " + std::to_string(at - line.data() + 1) + ": " + shown_json(std::string(at, word_end)) +
             " is not an integer";
    }
    if (number < 0 || number >= bound) {
      return "column " + std::to_string(at - line.data() + 1) + ": " + what + " " + std::to_string(number) +
             " is not in [0, " + std::to_string(bound - 1) + "]";
    }
    out.push_back(static_cast<int32_t>(number));
    if (stop == end) break;
    at = stop + 1;
  }
  if (static_cast<int64_t>(out.size()) == length) return "";
  const std::string count = static_cast<int64_t>(out.size()) > length ? "more" : std::to_string(out.size());
  return count + " numbers, every line needs " + std::to_string(length);
}

}  // namespace

TextFault parse_text_example(const JointRecall& task, const std::string& inputs, const std::string& mask,
                             Example& result) {
  const int64_t length = task.spec().padded_tokens;
  if (std::string fault = parse_line(inputs, length, task.spec().vocab_size, "token", result.tokens);
      !fault.empty()) {
    return {false, fault};
  }
  std::vector<int32_t> bits;
  if (std::string fault = parse_line(mask, length, 2, "mask", bits); !fault.empty()) return {true, fault};
  while (!result.tokens.empty() && result.tokens.back() == JointRecall::kPad) result.tokens.pop_back();
  result.scored.clear();
  result.targets.clear();
  for (size_t i = 0; i < bits.size(); ++i) {
    if (bits[i] == 0) continue;
    if (i + 1 >= result.tokens.size()) {
      return {true, "1 at position " + std::to_string(i) + ", where no answer follows"};
    }
    result.scored.push_back(static_cast<int32_t>(i));
    result.targets.push_back(result.tokens[i + 1]);
  }
  const JointRecall::Size size = task.size_of(result.tokens);
  result.slices = {static_cast<int32_t>(size.n_context), static_cast<int32_t>(size.n_key)};
  if (std::string fault = task.fault(result); !fault.empty()) {
    const bool in_mask = size.n_context > 0 && result.scored != JointRecall::scored_positions(size);
    return {in_mask, "not a joint-recall example: " + fault};
  }
  return {};
}

}  // namespace hax
