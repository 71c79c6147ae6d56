#include "data_gen/draw.h"

#include <iomanip>
#include <sstream>

#include "lib/base/error.h"

namespace hax {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kMargin = 25;  // position and the role that opens the line

bool opens_line(Role role, Role previous, bool first) {
  if (first) return true;
  switch (role) {
    case Role::bos:
    case Role::separator:
    case Role::context:
    case Role::query_context:
      return true;
    case Role::pair_key:
    case Role::pair_value:
      return false;
    case Role::query:
    case Role::filler:
    case Role::special:
      return previous != role;
    case Role::answer:
      return previous == Role::separator;
    default:
      return false;
  }
}

}  // namespace

std::string draw(const Task& task, const Example& example) {
  if (const std::string fault = task.fault(example); !fault.empty()) {
    throw DataError("not a " + task.spec().task + " example: " + fault);
  }
  const std::vector<Role> roles = task.roles(example);
  std::ostringstream out;
  out << task.spec().task;
  for (size_t i = 0; i < example.slices.size(); ++i) {
    out << ", " << task.spec().slice_columns[i] << " " << example.slices[i];
  }
  out << ", " << example.tokens.size() << " tokens, " << example.scored.size() << " scored\n"
      << "symbol(id); ? marks a scored position, [ ] its answer\n";

  size_t column = 0;
  size_t next = 0;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    const bool scored = next < example.scored.size() && static_cast<size_t>(example.scored[next]) == i;
    std::string word = task.symbol(example.tokens[i], roles[i]);
    // Fillers are shown by their id, which needs no second telling.
    if (roles[i] != Role::filler) word += "(" + std::to_string(example.tokens[i]) + ")";
    const bool answers = roles[i] == Role::answer && i > 0 && roles[i - 1] == Role::query_key;
    const bool glued = answers || roles[i] == Role::value || roles[i] == Role::pair_value;
    if (glued) word = "=" + word;
    if (scored) {
      const Role answer = task.spec().target_kind == TargetKind::label ? Role::pair_value : Role::answer;
      word += "? [" + task.symbol(example.targets[next++], answer) + "]";
    }
    const bool opens = opens_line(roles[i], i > 0 ? roles[i - 1] : roles[i], i == 0);
    if (opens || (column + word.size() + 1 > kWidth && !glued)) {
      if (i > 0) out << '\n';
      std::string role(role_name(roles[i]));
      out << std::setw(6) << i << "  " << std::left << std::setw(static_cast<int>(kMargin) - 8) << role
          << std::right;
      column = kMargin;
    } else if (!glued) {
      out << ' ';
      ++column;
    }
    out << word;
    column += word.size();
  }
  out << '\n';
  return out.str();
}

}  // namespace hax
