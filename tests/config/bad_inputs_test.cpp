// Every kind of bad input, with the place and the words that its message must have.
#include <chrono>
#include <sstream>

#include <sys/stat.h>

#include "lib/base/error.h"
#include "lib/config/load.h"
#include "lib/config/yaml.h"
#include "tests/catch.h"
#include "tests/config/scratch.h"

namespace hax {
namespace {

using test::Scratch;

std::string message_of(const Scratch& scratch, const std::vector<std::string>& files,
                       const std::vector<std::string>& sets) {
  try {
    load_config(files, sets);
  } catch (const UsageError& e) {
    return scratch.relative(e.what());
  }
  return "";
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

struct BadFile {
  std::string text;   // of c.yaml
  std::string start;  // of the message
  std::string says;   // somewhere after it
};

struct BadSetting {
  std::string setting;
  std::string start;  // after "--set <setting>: "
  std::string says;
};

void check_one(const std::string& message, const std::string& start, const std::string& says) {
  INFO("message: " << message);
  INFO("expected start: " << start);
  INFO("expected words: " << says);
  REQUIRE(lines_of(message).size() == 1);
  CHECK(message.substr(0, start.size()) == start);
  CHECK(message.find(says, start.size()) != std::string::npos);
}

const std::vector<BadFile> kTypes = {
    {"model:\n  d_model: 1.5\n", "c.yaml:2: model.d_model: found 1.5",
     "needs an integer x with 1 <= x <= 65536"},
    {"model:\n  d_model: 1e3\n", "c.yaml:2: model.d_model: found 1e3", "write 1000"},
    {"model:\n  d_model: 64.0\n", "c.yaml:2: model.d_model: found 64.0", "write 64"},
    {"model:\n  d_model: 0x40\n", "c.yaml:2: model.d_model: found 0x40", "needs an integer"},
    {"model:\n  d_model: 0o100\n", "c.yaml:2: model.d_model: found 0o100", "needs an integer"},
    {"model:\n  d_model: 064\n", "c.yaml:2: model.d_model: found 064", "needs an integer"},
    {"model:\n  d_model: 1_000\n", "c.yaml:2: model.d_model: found 1_000", "needs an integer"},
    {"model:\n  d_model: \"64\"\n", "c.yaml:2: model.d_model: found the text \"64\"",
     "remove the quotation marks"},
    {"model:\n  d_model: '64'\n", "c.yaml:2: model.d_model: found the text \"64\"",
     "remove the quotation marks"},
    {"model:\n  d_model: wide\n", "c.yaml:2: model.d_model: found wide", "needs an integer"},
    {"model:\n  d_model: true\n", "c.yaml:2: model.d_model: found true", "needs an integer"},
    {"model:\n  d_model: 64 heads\n", "c.yaml:2: model.d_model: found \"64 heads\"", "needs an integer"},
    {"model:\n  d_model: [64]\n", "c.yaml:2: model.d_model: found a list", "needs an integer"},
    {"model:\n  d_model: {a: 1}\n", "c.yaml:2: model.d_model: found a mapping of keys", "needs an integer"},
    {"model:\n  d_model: |\n    64\n", "c.yaml:2: model.d_model: found the text \"64\\x0a\"",
     "needs an integer"},
    {"train:\n  seed: 9223372036854775808\n", "c.yaml:2: train.seed: found 9223372036854775808",
     "does not fit 64 bits"},
    {"train:\n  seed: -1\n", "c.yaml:2: train.seed: found -1", "needs an integer >= 0"},
    {"train:\n  lr: fast\n", "c.yaml:2: train.lr: found fast", "needs a number > 0"},
    {"train:\n  lr: .nan\n", "c.yaml:2: train.lr: found .nan", "must be finite"},
    {"train:\n  lr: .inf\n", "c.yaml:2: train.lr: found .inf", "must be finite"},
    {"train:\n  lr: -.INF\n", "c.yaml:2: train.lr: found -.INF", "must be finite"},
    {"train:\n  lr: nan\n", "c.yaml:2: train.lr: found nan", "must be finite"},
    {"train:\n  lr: 1e999\n", "c.yaml:2: train.lr: found 1e999", "does not fit a double"},
    {"train:\n  lr: 1e-999\n", "c.yaml:2: train.lr: found 1e-999", "does not fit a double"},
    {"train:\n  lr: \"0.1\"\n", "c.yaml:2: train.lr: found the text \"0.1\"", "remove the quotation marks"},
    {"train:\n  lr: 1e\n", "c.yaml:2: train.lr: found 1e", "needs a number"},
    {"train:\n  lr: 1,5\n", "c.yaml:2: train.lr: found 1,5", "needs a number"},
    {"train:\n  lr: 0\n", "c.yaml:2: train.lr: found 0", "needs a number > 0"},
    {"train:\n  beta2: 1\n", "c.yaml:2: train.beta2: found 1", "needs a number x with 0 <= x < 1"},
    {"train:\n  target_accuracy: 99.5\n", "c.yaml:2: train.target_accuracy: found 99.5", "0 <= x <= 1"},
    {"model:\n  d_model: 0\n", "c.yaml:2: model.d_model: found 0", "1 <= x <= 65536"},
    {"model:\n  layers: 1001\n", "c.yaml:2: model.layers: found 1001", "1 <= x <= 1000"},
    {"task:\n  mqar:\n    random_non_queries: yes\n", "c.yaml:3: task.mqar.random_non_queries: found yes",
     "write true"},
    {"task:\n  mqar:\n    random_non_queries: 0\n", "c.yaml:3: task.mqar.random_non_queries: found 0",
     "write false"},
    {"task:\n  mqar:\n    random_non_queries: True\n", "c.yaml:3: task.mqar.random_non_queries: found True",
     "write true"},
    {"task:\n  mqar:\n    random_non_queries: \"true\"\n",
     "c.yaml:3: task.mqar.random_non_queries: found the text \"true\"", "needs true or false"},
    {"name: 64\n", "c.yaml:1: name: found 64", "put it in quotation marks: \"64\""},
    {"name: 0x1F\n", "c.yaml:1: name: found 0x1F", "put it in quotation marks"},
    {"name: 007\n", "c.yaml:1: name: found 007", "put it in quotation marks"},
    {"name: false\n", "c.yaml:1: name: found false", "put it in quotation marks"},
    {"name: [a]\n", "c.yaml:1: name: found a list", "needs text"},
    {"name: \"a\\0b\"\n", "c.yaml:1: name: found the text \"a\\x00b\"", "a control character (byte 0x00)"},
    {"name: \"a\\nb\"\n", "c.yaml:1: name: found the text \"a\\x0ab\"", "a control character (byte 0x0a)"},
    {"name: " + std::string(201, 'n') + "\n", "c.yaml:1: name: found \"nnn", "it has 201 bytes"},
    {"train:\n  schedule: cosinus\n", "c.yaml:2: train.schedule: found cosinus", "did you mean cosine?"},
    {"train:\n  schedule: Constant\n", "c.yaml:2: train.schedule: found Constant", "did you mean constant?"},
    {"train:\n  device: tpu\n", "c.yaml:2: train.device: found tpu", "needs one of auto, cpu, cuda"},
    {"train:\n  device: 1\n", "c.yaml:2: train.device: found 1", "needs one of auto, cpu, cuda"},
    {"model:\n  sparse:\n    patterns: lhs\n", "c.yaml:3: model.sparse.patterns: found lhs",
     "did you mean lsh?"},
    {"model:\n  sparse:\n    budgets: [8, 0]\n", "c.yaml:3: model.sparse.budgets: found 0",
     "list of integers"},
    {"model:\n  sparse:\n    budgets: 1.5\n", "c.yaml:3: model.sparse.budgets: found 1.5",
     "list of integers"},
    {"model:\n  sparse:\n    patterns:\n      - lsh\n      - key_selektion\n",
     "c.yaml:5: model.sparse.patterns: found key_selektion", "did you mean key_selection?"},
    {"model:\n  sparse:\n    patterns: [lsh, [sink]]\n", "c.yaml:3: model.sparse.patterns: found a list",
     "list of full"},
    {"model:\n  sparse:\n    patterns: [lsh, ~]\n", "c.yaml:3: model.sparse.patterns: found nothing",
     "list of full"},
    {"model:\n  sparse:\n    patterns: {lsh: 1}\n", "c.yaml:3: model.sparse.patterns: found a mapping",
     "list of full"},
};

const std::vector<BadFile> kKeys = {
    {"model:\n  d_modle: 64\n", "c.yaml:2: model.d_modle: unknown key", "did you mean model.d_model?"},
    {"modle:\n  d_model: 64\n", "c.yaml:1: modle: unknown key", "did you mean model?"},
    {"d_model: 64\n", "c.yaml:1: d_model: unknown key", "did you mean model.d_model?"},
    {"train:\n  hash_bits: 4\n", "c.yaml:2: train.hash_bits: unknown key",
     "did you mean model.sparse.hash_bits?"},
    {"model:\n  seed: 4\n", "c.yaml:2: model.seed: unknown key", "did you mean data.seed?"},
    {"zzzzzzzzzzzz: 64\n", "c.yaml:1: zzzzzzzzzzzz: unknown key", "`hax config explain`"},
    {"\"a\\e[31m\": 64\n", "c.yaml:1: \"a\\x1b[31m\": unknown key", "`hax config explain`"},
    {std::string(500, 'k') + ": 1\n", "c.yaml:1: ", "unknown key"},
    {"model.d_model: 64\n", "c.yaml:1: model.d_model: a dotted key", "nest the keys"},
    {"name: a\nname: b\n", "c.yaml:2: name: appears a second time", "first in line 1"},
    {"model:\n  layers: 1\ntrain:\n  steps: 200\nmodel:\n  layers: 2\n",
     "c.yaml:5: model: appears a second time", "first in line 1"},
    {"model: {layers: 1, \"layers\": 2}\n", "c.yaml:1: model.layers: appears a second time", "delete one"},
    {"model:\n  layers:\n  expand: 2\n", "c.yaml:2: model.layers: found nothing (null)",
     "give a value or delete the key"},
    {"model:\n  layers: ~\n", "c.yaml:2: model.layers: found nothing (null)", "give a value"},
    {"name: null\n", "c.yaml:1: name: found nothing (null)", "give a value"},
    {"name:\n", "c.yaml:1: name: found nothing (null)", "give a value"},
    {"model:\n  sparse:\n    patterns:\n", "c.yaml:3: model.sparse.patterns: found nothing (null)",
     "give a value"},
    {"model:\ntrain:\n  steps: 200\n", "c.yaml:1: model: found nothing (null)", "this is a section"},
    {"model: 3\n", "c.yaml:1: model: found 3", "needs a mapping of keys"},
    {"model: [3]\n", "c.yaml:1: model: found a list", "needs a mapping of keys"},
    {"? [a, b]\n: 3\n", "c.yaml:1: found a list as a key", "keys are names"},
    {"~: 3\n", "c.yaml:1: found nothing (null) as a key", "keys are names"},
    {"- name\n- b\n", "c.yaml:1: found a list", "a config is a mapping"},
    {"hello\n", "c.yaml:1: found hello", "a config is a mapping"},
    {"name:x\n", "c.yaml:1: found name:x", "a space after the colon"},
    {"<<: {name: a}\n", "c.yaml:1: <<: merge keys are refused", "include"},
    {"model:\n  <<: {layers: 1}\n", "c.yaml:2: model.<<: merge keys are refused", "include"},
    {"model:\n  include: a.yaml\n", "c.yaml:2: model.include: unknown key", "top level"},
};

const std::vector<BadFile> kSyntax = {
    {"name: &label a\n", "c.yaml:1: an anchor (&name) is refused", "include"},
    {"data:\n  path: !!str a\n", "c.yaml:2: the tag \"tag:yaml.org,2002:str\" is refused", "delete the tag"},
    {"model: !big {layers: 2}\n", "c.yaml:1: the tag \"!big\" is refused", "delete the tag"},
    {"name: *label\n", "c.yaml:1: not valid YAML: the referenced anchor is not defined", ""},
    {"name: a\n---\nname: b\n", "c.yaml:2: a second document begins here", "split it into two files"},
    {"{name: a} {name: b}\n", "c.yaml:1: a second document begins here", "split it"},
    {"%YAML 1.2\n---\nname: a\n", "c.yaml:1: a YAML directive (%) is refused", "delete the line"},
    {"model:\n\tlayers: 2\n", "c.yaml:2: a tab in the indentation", "indent with spaces"},
    {"model:\n  \tlayers: 2\n", "c.yaml:2: a tab in the indentation", "indent with spaces"},
    {"name: [a\n", "c.yaml:1: not valid YAML: end of sequence flow not found", ""},
    {"name: \"a\nmodel:\n  layers: 2\n", "c.yaml:1: a quotation mark is opened here and never closed", ""},
    {"model:\n  layers: 2\nname: 'a\n", "c.yaml:3: a quotation mark is opened here and never closed", ""},
    {"\"name\n", "c.yaml:1: ", "never closed"},
    {"name: a: b\n", "c.yaml:1: not valid YAML: illegal map value", ""},
    {"model:\n  layers: 2\n expand: 2\n", "c.yaml:3: not valid YAML: end of map not found", ""},
    {"name: @a\n", "c.yaml:1: not valid YAML: unknown token", ""},
    {"name: \"\\q\"\n", "c.yaml:1: not valid YAML: unknown escape character: q", ""},
    {"name: \"\\ud800\"\n", "c.yaml:1: not valid YAML: invalid unicode", ""},
    {"# good\nname: \xff\n", "c.yaml:2: a byte that is not UTF-8 (0xff)", "plain UTF-8"},
    {"name: \xc0\xaf\n", "c.yaml:1: a byte that is not UTF-8 (0xc0)", "plain UTF-8"},
    {"name: \xed\xa0\x80\n", "c.yaml:1: a byte that is not UTF-8 (0xed)", "plain UTF-8"},
    {"name: \xe2\x82", "c.yaml:1: a byte that is not UTF-8 (0xe2)", "plain UTF-8"},
    {"\xff\xfen\0a\0", "c.yaml:1: a byte that is not UTF-8 (0xff)", "plain UTF-8"},
    {std::string("name: a\0b\n", 10), "c.yaml:1: a control character (byte 0x00)", "plain UTF-8"},
    {"name: a\x1b[31m\n", "c.yaml:1: a control character (byte 0x1b)", "plain UTF-8"},
    {"name: a\rdata: b\n", "c.yaml:1: a control character (byte 0x0d)", "plain UTF-8"},
    {"name: " + std::string(kMaxYamlBytes, 'x'), "c.yaml: has 262150 bytes, more than the 262144",
     "another kind of file"},
};

const std::vector<BadSetting> kSettings = {
    {"train.lr", "has no '='", "write --set key=value"},
    {"=3", "has no key before '='", "write --set key=value"},
    {"train.rl=3", "train.rl: unknown key", "did you mean train.lr?"},
    {" train.lr=3", "\" train.lr\": unknown key", "did you mean train.lr?"},
    {"train.lr=", "train.lr: found nothing (null)", "needs a number > 0"},
    {"train.lr= # none", "train.lr: found nothing (null)", "needs a number > 0"},
    {"name=", "name: found nothing (null)", "give a value"},
    {"train.lr=fast", "train.lr: found fast", "needs a number > 0"},
    {"train.steps=1e3", "train.steps: found 1e3", "write 1000"},
    {"train.steps=2.5", "train.steps: found 2.5", "needs an integer"},
    {"train=3", "train: found 3", "needs a mapping of keys"},
    {"train={rl: 3}", "train.rl: unknown key", "did you mean train.lr?"},
    {"model={sparse.k: 3}", "model.sparse.k: a dotted key", "nest the keys"},
    {"model.sparse.patterns=[lsh", "not valid YAML: end of sequence flow not found", ""},
    {"model.sparse.patterns=[lsh,lsh]", "model.sparse.patterns names lsh 2 times", "once"},
    {"name=\"a", "a quotation mark is opened here and never closed", ""},
    {"name=&x a", "an anchor (&name) is refused", ""},
    {"include=a.yaml", "include: unknown key", "top level of a file"},
    {"name=\xff", "a byte that is not UTF-8", ""},
};

TEST_CASE("a bad value in a file is refused with its place and remedy") {
  for (const auto* table : {&kTypes, &kKeys, &kSyntax}) {
    for (const BadFile& bad : *table) {
      const Scratch scratch;
      INFO("file:\n" << bad.text.substr(0, 200));
      check_one(message_of(scratch, {scratch.write("c.yaml", bad.text)}, {}), bad.start, bad.says);
    }
  }
}

TEST_CASE("a bad setting is refused with its text as the place") {
  const Scratch scratch;
  for (const BadSetting& bad : kSettings) {
    INFO("setting: " << bad.setting);
    const std::string message = message_of(scratch, {}, {bad.setting});
    const std::string place =
        bad.setting.find('\xff') == std::string::npos ? "--set " + bad.setting + ": " : "--set ";
    check_one(message, place, bad.says);
    CHECK(message.find(bad.start) != std::string::npos);
  }
}

TEST_CASE("what is no readable file is refused") {
  const Scratch scratch;
  check_one(message_of(scratch, {scratch.path("none.yaml")}, {}), "none.yaml: no such file", "give the path");
  std::filesystem::create_directories(scratch.path("folder"));
  check_one(message_of(scratch, {scratch.path("folder")}, {}), "folder: is a folder", "give the path");
  REQUIRE(::mkfifo(scratch.path("pipe").c_str(), 0600) == 0);
  check_one(message_of(scratch, {scratch.path("pipe")}, {}), "pipe: is not a regular file", "");
  check_one(message_of(scratch, {""}, {}), ": no such file", "give the path");
  std::filesystem::create_symlink("loop.yaml", scratch.path("loop.yaml"));
  check_one(message_of(scratch, {scratch.path("loop.yaml")}, {}), "loop.yaml: cannot be read: ", "");
  if (::geteuid() != 0) {  // root reads everything
    const std::string secret = scratch.write("secret.yaml", "name: a\n");
    std::filesystem::permissions(secret, std::filesystem::perms::none);
    check_one(message_of(scratch, {secret}, {}), "secret.yaml: cannot read", "ermission");
  }
}

TEST_CASE("bad includes are refused at the line that asks for them") {
  const Scratch scratch;
  const auto try_file = [&](const std::string& text) {
    return message_of(scratch, {scratch.write("a/top.yaml", text)}, {});
  };
  check_one(try_file("name: x\ninclude: none.yaml\n"), "a/top.yaml:2: include: a/none.yaml: no such file",
            "");
  check_one(try_file("include: ..\n"), "a/top.yaml:1: include: ", "is a folder");
  check_one(try_file("include: 3.5\n"), "a/top.yaml:1: include: a/3.5: no such file", "");
  check_one(try_file("include:\n"), "a/top.yaml:1: include: found nothing (null)",
            "needs a path or a list of paths");
  check_one(try_file("include: \"\"\n"), "a/top.yaml:1: include: found the text \"\"", "needs a path");
  check_one(try_file("include: {a: b}\n"), "a/top.yaml:1: include: found a mapping", "needs a path");
  check_one(try_file("include:\n  - [b]\n"), "a/top.yaml:2: include: found a list", "needs a path");
  check_one(try_file("include: \"a\\0\"\n"), "a/top.yaml:1: include: found the text \"a\\x00\"",
            "needs a path");
  check_one(try_file("include: top.yaml\n"), "a/top.yaml:1: include: a cycle: a/top.yaml -> a/top.yaml",
            "remove one");

  scratch.write("a/left.yaml", "include: ../b/right.yaml\n");
  scratch.write("b/right.yaml", "name: x\ninclude: [../a/left.yaml]\n");
  check_one(try_file("include: left.yaml\n"),
            "b/right.yaml:2: include: a cycle: a/left.yaml -> b/right.yaml -> a/left.yaml", "remove one");

  scratch.write("a/bad.yaml", "name: x\nmodel:\n  d_modle: 3\n");
  check_one(try_file("include: bad.yaml\n"), "a/bad.yaml:3: model.d_modle: unknown key", "model.d_model");

  const std::vector<std::string> both = lines_of(try_file("include: [b.yaml,\n  c.yaml]\ninclude: d.yaml\n"));
  REQUIRE(both.size() == 3);
  CHECK(both[0].starts_with("a/top.yaml:1: include: a/b.yaml: no such file"));
  CHECK(both[1].starts_with("a/top.yaml:2: include: a/c.yaml: no such file"));
  CHECK(both[2].starts_with("a/top.yaml:3: include: appears a second time"));
}

TEST_CASE("includes that multiply are cut off") {
  const Scratch scratch;
  for (int i = 0; i < 30; ++i) {
    const std::string next = std::to_string(i + 1) + ".yaml";
    scratch.write(std::to_string(i) + ".yaml", "include: [" + next + ", " + next + "]\n");
  }
  scratch.write("30.yaml", "name: x\n");
  const std::string message = message_of(scratch, {scratch.path("0.yaml")}, {});
  REQUIRE(lines_of(message).size() == 1);
  CHECK(message.find("more than 100 files are included") != std::string::npos);
}

TEST_CASE("all problems of all layers are reported at once, in order") {
  const Scratch scratch;
  const std::string first =
      scratch.write("a.yaml", "modle:\n  x: 1\nmodel:\n  layers: 0\n  n_heads: 5\nname: 3\n");
  const std::string second = scratch.write("b.yaml", "name: [\n");
  const std::string third = scratch.write("c.yaml", "train:\n  warmup_steps: 9000\n");
  const std::vector<std::string> lines =
      lines_of(message_of(scratch, {first, second, third}, {"train.lr=0", "train.warmup_steps=9001"}));
  REQUIRE(lines.size() == 7);
  CHECK(lines[0].starts_with("a.yaml:1: modle: unknown key"));
  CHECK(lines[1].starts_with("a.yaml:4: model.layers: found 0"));
  CHECK(lines[2].starts_with("a.yaml:6: name: found 3"));
  CHECK(lines[3].starts_with("b.yaml:1: not valid YAML"));
  CHECK(lines[4].starts_with("--set train.lr=0: train.lr: found 0"));
  CHECK(lines[5].starts_with("a.yaml:5: model.n_heads = 5 must divide"));
  CHECK(lines[6] == "--set train.warmup_steps=9001: train.warmup_steps = 9001 must be <= train.steps = 2000");
}

TEST_CASE("combinations are not judged by values that could not be read") {
  const Scratch scratch;
  const std::string file = scratch.write("c.yaml", "model:\n  d_model: wide\n  n_heads: 5\n");
  check_one(message_of(scratch, {file}, {}), "c.yaml:2: model.d_model: found wide", "needs an integer");
  check_one(message_of(scratch, {}, {"model.d_model=[", "model.n_heads=5"}),
            "--set model.d_model=[: not valid YAML", "");
}

TEST_CASE("the list of problems is cut after a hundred") {
  const Scratch scratch;
  std::string text;
  for (int i = 0; i < 250; ++i) text += "key" + std::to_string(i) + ": 1\n";
  const std::vector<std::string> lines = lines_of(message_of(scratch, {scratch.write("c.yaml", text)}, {}));
  REQUIRE(lines.size() == 101);
  CHECK(lines[99].starts_with("c.yaml:100: key99: unknown key"));
  CHECK(lines[100] == "and 150 more problems");
}

TEST_CASE("an alias is refused once and its key is not judged further") {
  const Scratch scratch;
  const std::vector<std::string> lines = lines_of(
      message_of(scratch, {scratch.write("c.yaml", "name: &x a\ndata:\n  path: *x\nmodel: *x\n")}, {}));
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].starts_with("c.yaml:1: an anchor"));
  CHECK(lines[1].starts_with("c.yaml:3: an alias (*name) is refused"));
  CHECK(lines[2].starts_with("c.yaml:4: an alias (*name) is refused"));
}

std::string repeated(const std::string& text, size_t bytes) {
  std::string out;
  while (out.size() + text.size() <= bytes) out += text;
  return out;
}

TEST_CASE("hostile files end in a message, quickly and without deep recursion") {
  const Scratch scratch;
  std::string staircase;
  for (int i = 0; staircase.size() < 200000; ++i)
    staircase += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  std::vector<std::string> texts = {staircase, "a: \"" + std::string(200000, 'x'), std::string(250000, '\'')};
  for (const char* piece :
       {"[",     "{",    "- ",     "? ",     "a: ", "{a: ", "[x, ", "]",   "}",     "&a ", "*a ", "!x ",
        "---\n", "%A\n", "a: 1\n", "a:\n  ", "[]",  "\"",   "\\",   "|\n", "- -\n", ",",   ": ",  "a: |\n"}) {
    texts.push_back(repeated(piece, 250000));
    texts.push_back("name: " + repeated(piece, 250000));
  }
  for (const std::string& text : texts) {
    INFO("text begins: " << text.substr(0, 40));
    const auto begin = std::chrono::steady_clock::now();
    CHECK(!message_of(scratch, {scratch.write("c.yaml", text)}, {}).empty());
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
  }
  check_one(message_of(scratch, {scratch.write("c.yaml", repeated("[", 200000))}, {}),
            "c.yaml:1: nested deeper than 16", "");
  check_one(message_of(scratch, {scratch.write("c.yaml", staircase)}, {}), "c.yaml:17: nested deeper than 16",
            "");
}

}  // namespace
}  // namespace hax
