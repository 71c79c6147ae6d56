#include "data_gen/task.h"

#include <stdexcept>

namespace hax {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::bos:
      return "bos";
    case Role::context:
      return "context";
    case Role::key:
      return "key";
    case Role::value:
      return "value";
    case Role::separator:
      return "separator";
    case Role::query_context:
      return "query context";
    case Role::query_key:
      return "query key";
    case Role::answer:
      return "answer";
    case Role::pair_key:
      return "pair key";
    case Role::pair_value:
      return "pair value";
    case Role::query:
      return "query";
    case Role::filler:
      return "filler";
    case Role::data:
      return "data";
    case Role::special:
      return "special";
  }
  throw std::invalid_argument("role_name: " + std::to_string(static_cast<int>(role)));
}

void Task::require_error(const Example& example, size_t i, int32_t predicted) {
  if (i >= example.targets.size()) {
    throw std::invalid_argument("error_kind: answer " + std::to_string(i) + " of " +
                                std::to_string(example.targets.size()));
  }
  if (predicted == example.targets[i]) {
    throw std::invalid_argument("error_kind: " + std::to_string(predicted) + " is the right answer");
  }
}

}  // namespace hax
