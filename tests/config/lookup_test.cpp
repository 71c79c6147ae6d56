// Keys by short names, and the values that tables show.
#include "lib/config/lookup.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {
namespace {

std::string refusal(const std::string& name) {
  return message_of<UsageError>([&] { full_key(name, "--rows"); });
}

}  // namespace

TEST_CASE("a key is found whole, or by a last part that it alone has") {
  CHECK(full_key("train.lr", "--rows") == "train.lr");
  CHECK(full_key("lr", "--rows") == "train.lr");
  CHECK(full_key("hash_bits", "--rows") == "model.sparse.hash_bits");
  CHECK(full_key("name", "--rows") == "name");  // though task.name ends alike
}

TEST_CASE("keys that are none or several are refused with what would do") {
  CHECK(refusal("seed") == "--rows \"seed\": is the end of 2 keys; write data.seed or train.seed");
  CHECK(contains(refusal("d_sate"), "--rows \"d_sate\": no such key; did you mean model.d_state"));
  CHECK(contains(refusal("trian.lr"), "train.lr"));
  CHECK(contains(refusal("qqqqqqqqqq"), "hax config explain"));
  CHECK(contains(refusal(""), "no such key"));
  CHECK(contains(refusal("model"), "no such key"));
}

TEST_CASE("values as a table shows them") {
  Config config;
  config.name = "a \"name\"";
  config.train.lr = 3e-3;
  config.model.sparse.patterns = {PatternKind::lsh, PatternKind::key_selection};
  config.model.sparse.budgets = {16, 48};
  CHECK(value_of_key(config, "name").text == "a \"name\"");
  CHECK_FALSE(value_of_key(config, "name").number);
  CHECK(value_of_key(config, "train.lr").text == "0.003");
  CHECK(value_of_key(config, "train.lr").number == 3e-3);
  CHECK(value_of_key(config, "model.layers").number == 2.0);
  CHECK(value_of_key(config, "model.mode").text == "causal");
  CHECK(value_of_key(config, "model.sparse.patterns").text == "lsh+key_selection");
  CHECK(value_of_key(config, "model.sparse.budgets").text == "16+48");
  CHECK(value_of_key(Config(), "model.sparse.patterns").text == "none");
  CHECK_THROWS_AS(value_of_key(config, "lr"), std::invalid_argument);
}

TEST_CASE("keys without an effect on results") {
  CHECK_FALSE(changes_results("name"));
  CHECK_FALSE(changes_results("train.threads"));
  CHECK(changes_results("train.seed"));
  CHECK(changes_results("task.name"));
  CHECK(changes_results("train.device"));
}

}  // namespace hax::test
