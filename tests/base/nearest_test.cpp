#include "lib/base/nearest.h"

#include "tests/catch.h"

namespace hax {
namespace {

using Names = std::vector<std::string>;

TEST_CASE("edit distance counts swapped neighbours once") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("d_modle", "d_model") == 1);
  CHECK(edit_distance("abc", "abc") == 0);
}

TEST_CASE("near names come nearest first") {
  const Names known = {"d_model", "d_state", "d_inner", "layers", "d_modal"};
  CHECK(nearest_names("d_modle", known, 3) == Names{"d_model", "d_modal"});
  CHECK(nearest_names("d_model", known, 1) == Names{"d_model"});
  CHECK(nearest_names("layer", known, 3) == Names{"layers"});
  CHECK(nearest_names("optimiser", known, 3).empty());
  CHECK(nearest_names("", known, 3).empty());
  CHECK(nearest_names("x", {}, 3).empty());
}

TEST_CASE("a third of the letters may differ, and never more than eight") {
  CHECK(nearest_names("abcxyz", {"abcdxz"}, 1) == Names{"abcdxz"});
  CHECK(nearest_names("abcuvw", {"abcxyz"}, 1).empty());
  const std::string name(60, 'a');
  CHECK(nearest_names(name, {name.substr(0, 52) + "bbbbbbbb"}, 1).size() == 1);
  CHECK(nearest_names(name, {name.substr(0, 51) + "bbbbbbbbb"}, 1).empty());
}

}  // namespace
}  // namespace hax
