// The known dotted key that a misspelt one most likely stands for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hax {

// The candidate with the smallest distance, the first of equals; empty where all differ in more than half
// of their letters. A key of another section counts where its last part is the one meant.
std::string nearest_key(std::string_view key, const std::vector<std::string>& known);

}  // namespace hax
