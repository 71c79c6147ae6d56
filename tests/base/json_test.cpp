// JSON that was damaged or written to do harm, by table: every document and the words of its refusal.
#include "lib/base/json.h"

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax {
namespace {

using nlohmann::json;
using test::contains;
using test::message_of;

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

struct BadDocument {
  std::string text;
  std::string says;
};

const std::vector<BadDocument> kBad = {
    {"", "unexpected end of input"},
    {" \r\n\t", "unexpected end of input"},
    {"{", "unexpected end of input"},
    {"{\"a\": 1", "unexpected end of input"},
    {"{\"a\": 1}}", "expected end of input"},
    {"{\"a\": 1} x", "invalid literal"},
    {"{'a': 1}", "line 1, column 2"},
    {"{\"a\": 1,}", "line 1, column 9"},
    {"{\n\"a\": tru\n}", "line 3, column 0"},
    {"{a: 1}", "line 1, column 2"},
    {"{\"a\": 01}", "line 1, column 8"},
    {"{\"a\": +1}", "invalid literal"},
    {"{\"a\": 0x10}", "line 1"},
    {"{\"a\": NaN}", "invalid literal"},
    {"{\"a\": Infinity}", "invalid literal"},
    {"{\"a\": 1e999}", "number overflow"},
    {"{\"a\": -1e999}", "number overflow"},
    {"{\"a\": \"\xff\"}", "UTF-8"},
    {"{\"a\": \"\xed\xa0\x80\"}", "UTF-8"},
    {"{\"a\": \"\\ud800\"}", "surrogate"},
    {"{\"a\": \"\n\"}", "control character"},
    {"// a\n{}", "invalid literal"},
    {"\xfe\xff{}", "line 1"},
    {std::string("{}\0{", 4), "a NUL byte at byte 2"},
    {std::string("\0", 1), "a NUL byte at byte 0"},
    {"{\"a\": 1, \"b\": 2, \"a\": 1}", "the key \"a\" appears twice"},
    {"[{\"a\": {\"x\": 1, \"\\u0078\": 1}}]", "the key \"x\" appears twice"},
    {"{\"\": 1, \"\": 2}", "the key \"\" appears twice"},
    {repeated("[", 65) + repeated("]", 65), "nested deeper than 64 levels"},
    {repeated("{\"a\":", 65) + "1" + repeated("}", 65), "nested deeper than 64 levels"},
    {repeated("[", 3000000), "nested deeper than 64 levels"},
    {repeated("[{\"a\":", 1000000), "nested deeper than 64 levels"},
};

TEST_CASE("malformed and hostile JSON is refused with the place") {
  for (const BadDocument& bad : kBad) {
    INFO("document: " << bad.text.substr(0, 100));
    const std::string message = message_of<DataError>([&] { parse_json(bad.text); });
    INFO("message: " << message);
    CHECK(message.starts_with("not valid JSON: "));
    CHECK(contains(message, bad.says));
    CHECK(message.size() < 500);
  }
}

TEST_CASE("good JSON is read whatever its line ends, byte order mark and depth") {
  CHECK(parse_json("\xef\xbb\xbf{\"a\":\r\n[1, 2.5, \"\\u0000\", null]}\r\n")["a"][1] == 2.5);
  CHECK(parse_json("{\"a\": {\"x\": 1}, \"b\": {\"x\": 1}}").size() == 2);
  CHECK(parse_json(repeated("[", 64) + repeated("]", 64)).size() == 1);
}

TEST_CASE("every prefix and every flipped bit of a document is read or refused, never more") {
  const std::string good = R"({"format": "x", "n": [1, -2, 3.5e1], "o": {"k": true, "z": null}})";
  for (size_t length = 0; length < good.size(); ++length) {
    CHECK_THROWS_AS(parse_json(good.substr(0, length)), DataError);
  }
  int refused = 0;
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    try {
      parse_json(bad).dump();
    } catch (const DataError&) {
      ++refused;
    }
  }
  CHECK(refused > 100);
}

TEST_CASE("a reader's message names place, key, what was found and the remedy") {
  const json object = parse_json(
      R"({"n": 5, "big": 18446744073709551615, "float": 1.0, "t": "x", "b": true, "list": [1, "a"],
          "o": {"n": "5"}, "os": [{"n": 1}, 2]})");
  const JsonReader reader(object, "m.json", "make it again");
  const auto says = [](const auto& call) { return message_of<DataError>(call); };
  CHECK(reader.integer("n", 0, 9) == 5);
  CHECK(reader.number("n", 0, 9) == 5.0);
  CHECK(reader.integers("n") == std::vector<int64_t>{5});
  CHECK(says([&] { reader.integer("n", 6, 9); }) ==
        "m.json: n must be an integer in [6, 9], found 5; make it again");
  CHECK(contains(says([&] { reader.integer("big", 0, INT64_MAX); }), "found 18446744073709551615"));
  CHECK(contains(says([&] { reader.integer("float", 0, 9); }),
                 "float must be an integer in [0, 9], found 1.0"));
  CHECK(contains(says([&] { reader.integer("b", 0, 9); }), "found true"));
  CHECK(contains(says([&] { reader.integer("t", 0, 9); }), "found \"x\""));
  CHECK(contains(says([&] { reader.integer("none", 0, 9); }), "none is missing"));
  CHECK(contains(says([&] { reader.number("t", 0, 9); }), "t must be a number in [0, 9]"));
  CHECK(contains(says([&] { reader.number("n", 0, 0.5); }), "[0, 0.5], found 5"));
  CHECK(contains(says([&] { reader.boolean("n"); }), "n must be true or false, found 5"));
  CHECK(contains(says([&] { reader.text("n"); }), "n must be a string, found 5"));
  CHECK(contains(says([&] { reader.texts("list"); }), "list must be a list of strings"));
  CHECK(contains(says([&] { reader.integers("list"); }), "list must be a list of integers"));
  CHECK(contains(says([&] { reader.child("n"); }), "m.json: n must be an object, found 5"));
  CHECK(contains(says([&] { reader.child("o").integer("n", 0, 9); }), "m.json: o.n must be an integer"));
  CHECK(reader.element("os", 0).integer("n", 0, 9) == 1);
  CHECK(contains(says([&] { reader.element("os", 1); }), "m.json: os[1] must be an object, found 2"));
  CHECK(contains(says([&] { JsonReader(json(3), "m.json", "make it again"); }),
                 "m.json: must be an object, found 3"));
}

TEST_CASE("a value in a message is short, printable and on one line") {
  CHECK(shown_json(parse_json("{\"a\": [1, null]}")) == "{\"a\":[1,null]}");
  CHECK(shown_json(json("\x1b[31m\n\xff")).find_first_of("\x1b\n\xff") == std::string::npos);
  CHECK(shown_json(json(std::string(100000, 'x'))).size() < 100);
}

}  // namespace
}  // namespace hax
