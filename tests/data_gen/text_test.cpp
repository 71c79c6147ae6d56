#include "data_gen/text.h"

#include <sys/stat.h>

#include <filesystem>

#include "data_gen/draw.h"
#include "data_gen/generate.h"
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/dataset.h"
#include "tests/catch.h"
#include "tests/data_gen/golden.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::golden_path;
using hax::test::mentions;
using hax::test::message_of;
using hax::test::Scratch;

namespace {

TextImport import_of(const std::string& folder, const std::string& out) {
  TextImport options;
  options.folder = folder;
  options.out = out;
  options.threads = 2;
  options.program_version = "test";
  return options;
}

std::vector<std::string> text_files(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TaskConfig small_task() {
  TaskConfig task;
  task.joint_recall.n_context_min = task.joint_recall.n_key_min = 1;
  task.joint_recall.n_context_max = task.joint_recall.n_key_max = 2;
  return task;
}

// Six small text files, one of which a test spoils.
struct TextFolder {
  Scratch scratch;
  std::string text = scratch / "text";
  std::string inputs = text + "/max_n_context_2_max_n_key_2_seed_9_train_inputs.txt";
  std::string mask = text + "/max_n_context_2_max_n_key_2_seed_9_train_mask.txt";

  TextFolder() {
    DataConfig data;
    data.seed = 9;
    data.train_examples = 8;
    data.valid_examples = 4;
    data.test_examples = 4;
    GenerateOptions options;
    options.out = scratch / "dataset";
    options.threads = 1;
    generate_dataset(small_task(), data, options);
    export_text(scratch / "dataset", text, 2);
  }
  // The error of importing after `change` was made to a file's text; nothing may be left behind.
  template <class Change>
  std::string error(const std::string& path, const Change& change) {
    std::string bytes = read_file(path);
    change(bytes);
    write_file(path, bytes);
    const std::string message =
        message_of<DataError>([&] { import_text(import_of(text, scratch / "again")); });
    if (!message.empty()) CHECK(!std::filesystem::exists(scratch / "again"));
    return message;
  }
};

size_t line_start(const std::string& text, int line) {
  size_t at = 0;
  for (int i = 1; i < line; ++i) at = text.find('\n', at) + 1;
  return at;
}

}  // namespace

TEST_CASE("official text files come back byte for byte", "[golden]") {
  const Scratch scratch;
  const std::string official = golden_path("joint_recall_text");
  import_text(import_of(official, scratch / "d"));
  const Dataset dataset = Dataset::open(scratch / "d", 1);
  const auto task = make_task(dataset.manifest(), scratch / "d");
  int64_t examples = 0;
  Example example;
  ExampleSet seen;
  for (Split split : kSplits) {
    for (int64_t i = 0; i < dataset.split(split).size(); ++i, ++examples) {
      dataset.split(split).example(i, example);
      REQUIRE(task->oracle(example) == example.targets);
      REQUIRE(seen.insert(hash_tokens(example.tokens)));
      // The official order of sizes is ours: an own example of the same index has the same slices.
      Example own;
      draw_example(*task, 1, split, i, 0, own);
      REQUIRE(own.slices == example.slices);
      REQUIRE(own.scored == example.scored);
    }
  }
  CHECK(examples > 0);
  CHECK(dataset.manifest().origin == "imported");
  export_text(scratch / "d", scratch / "text", 2);
  std::vector<std::string> names = text_files(official);
  CHECK(text_files(scratch / "text").size() == 6);
  REQUIRE(names.size() == 6);
  for (const std::string& name : names) {
    INFO(name);
    CHECK((read_file(official + "/" + name) == read_file(scratch / "text" + "/" + name)));
  }
}

TEST_CASE("a generated dataset survives export and import") {
  TextFolder folder;
  import_text(import_of(folder.text, folder.scratch / "again"));
  const Manifest before = read_manifest(folder.scratch / "dataset");
  const Manifest after = read_manifest(folder.scratch / "again");
  CHECK(after.seed == 9);
  CHECK(after.fingerprint() == before.fingerprint());
  for (Split split : kSplits) CHECK(after.split(split).checksum == before.split(split).checksum);
  CHECK(mentions(message_of<UsageError>([&] { export_text(folder.scratch / "again", folder.text, 1); }),
                 "exists"));
}

TEST_CASE("line ends of other systems and a missing last one are read") {
  TextFolder folder;
  const auto to_crlf = [](std::string& text) {
    std::string result;
    for (char c : text) result += c == '\n' ? std::string("\r\n") : std::string(1, c);
    text = result;
  };
  CHECK(folder.error(folder.inputs, to_crlf).empty());
  CHECK(read_manifest(folder.scratch / "again").fingerprint() ==
        read_manifest(folder.scratch / "dataset").fingerprint());
  std::filesystem::remove_all(folder.scratch / "again");
  CHECK(folder.error(folder.mask, [](std::string& text) { text.pop_back(); }).empty());
  CHECK(read_manifest(folder.scratch / "again").split(Split::train).examples == 8);
}

TEST_CASE("faulty text files are refused with file and line") {
  TextFolder folder;
  const std::string third_input = folder.inputs + ":3: ";
  const std::string third_mask = folder.mask + ":3: ";
  SECTION("a line too short") {
    const auto message = folder.error(folder.inputs, [](std::string& t) { t.erase(line_start(t, 3), 2); });
    CHECK(mentions(message, third_input + "21 numbers, every line needs 22"));
  }
  SECTION("a line too long") {
    const auto message =
        folder.error(folder.inputs, [](std::string& t) { t.insert(line_start(t, 3), "1 "); });
    CHECK(mentions(message, third_input + "more numbers"));
  }
  SECTION("an empty line") {
    CHECK(mentions(folder.error(folder.inputs, [](std::string& t) { t.insert(line_start(t, 3), "\n"); }),
                   third_input));
  }
  SECTION("a word") {
    const auto message =
        folder.error(folder.inputs, [](std::string& t) { t.replace(line_start(t, 3), 1, "one"); });
    CHECK(mentions(message, third_input + "column 1: \"one\" is not an integer"));
  }
  SECTION("a fraction") {
    const auto message =
        folder.error(folder.inputs, [](std::string& t) { t.replace(line_start(t, 3), 1, "1.0"); });
    CHECK(mentions(message, "\"1.0\" is not an integer"));
  }
  SECTION("a number beyond 64 bits") {
    const auto message = folder.error(
        folder.inputs, [](std::string& t) { t.replace(line_start(t, 3), 1, "99999999999999999999"); });
    CHECK(mentions(message, third_input));
  }
  SECTION("a token outside the vocabulary") {
    const auto message =
        folder.error(folder.inputs, [](std::string& t) { t.replace(line_start(t, 3), 1, "100"); });
    CHECK(mentions(message, third_input + "column 1: token 100 is not in [0, 99]"));
  }
  SECTION("a mask of 2") {
    const auto message = folder.error(folder.mask, [](std::string& t) { t[line_start(t, 3)] = '2'; });
    CHECK(mentions(message, third_mask + "column 1: mask 2 is not in [0, 1]"));
  }
  SECTION("a mask at another place") {
    const auto message = folder.error(folder.mask, [](std::string& t) { t[line_start(t, 3)] = '1'; });
    CHECK(mentions(message, third_mask));
  }
  SECTION("a mask at the end of the line") {
    const auto message = folder.error(folder.mask, [](std::string& t) { t[line_start(t, 4) - 2] = '1'; });
    CHECK(mentions(message, third_mask + "1 at position 21"));
  }
  SECTION("a broken structure") {
    const auto message = folder.error(folder.inputs, [](std::string& t) { t[line_start(t, 3)] = '3'; });
    CHECK(mentions(message, third_input + "not a joint-recall example"));
  }
  SECTION("fewer masks than inputs") {
    const auto message = folder.error(folder.mask, [](std::string& t) { t.erase(line_start(t, 8)); });
    CHECK(mentions(message, folder.mask + ": ends after line 7"));
  }
  SECTION("fewer inputs than masks") {
    const auto message = folder.error(folder.inputs, [](std::string& t) { t.erase(line_start(t, 8)); });
    CHECK(mentions(message, folder.inputs + ": ends after line 7"));
  }
  const auto import = [&] { import_text(import_of(folder.text, folder.scratch / "again")); };
  SECTION("a missing file") {
    std::filesystem::remove(folder.mask);
    CHECK(mentions(message_of<DataError>(import), folder.mask));
  }
  SECTION("a folder or a pipe in place of a file") {
    std::filesystem::remove(folder.mask);
    std::filesystem::create_directory(folder.mask);
    CHECK(mentions(message_of<DataError>(import), folder.mask + ": is not a regular file"));
    std::filesystem::remove(folder.mask);
    REQUIRE(::mkfifo(folder.mask.c_str(), 0600) == 0);
    CHECK(mentions(message_of<DataError>(import), folder.mask + ": is not a regular file"));
    CHECK(!std::filesystem::exists(folder.scratch / "again"));
  }
  SECTION("bytes that are no text") {
    struct Row {
      std::string bytes;
      std::string says;
    };
    const std::vector<Row> rows = {{std::string("\0", 1), "column 1: \"\\u0000"},
                                   {"\x1b[31m", "column 1: \"\\u001b[31m"},
                                   {"\xff", "column 1: \"\\ufffd"},
                                   {"\xef\xbb\xbf", "column 1: \"\\ufeff"},
                                   {"-", "token -1 is not in [0, 99]"},
                                   {"+", "is not an integer"},
                                   {"\t", "column 1: \"\\t1\" is not an integer"},
                                   {" ", "column 1: \"\" is not an integer"},
                                   {std::string(1 << 20, '9'), "is not an integer"}};
    const std::string good = read_file(folder.inputs);
    for (const Row& row : rows) {
      INFO(row.says);
      write_file(folder.inputs, good);
      const auto message =
          folder.error(folder.inputs, [&](std::string& t) { t.insert(line_start(t, 3), row.bytes); });
      CHECK(mentions(message, third_input));
      CHECK(mentions(message, row.says));
      CHECK(message.size() < 600);
    }
  }
}

TEST_CASE("a set of text files must be there, and be the only one or be named") {
  TextFolder folder;
  const auto import = [&](const std::string& from, const std::string& stem) {
    TextImport options = import_of(from, folder.scratch / "again");
    options.stem = stem;
    return message_of<UsageError>([&] { import_text(options); });
  };
  CHECK(mentions(import(folder.scratch / "none", ""), "no such folder"));
  CHECK(mentions(import(folder.scratch / "dataset", ""), "no files named"));
  CHECK(mentions(import(folder.text, "max_n_context_3_max_n_key_2_seed_9"), "no files named"));
  write_file(folder.text + "/max_n_context_2_max_n_key_2_seed_10_test_mask.txt", "");
  CHECK(mentions(import(folder.text, ""), "several"));
  CHECK(import(folder.text, "max_n_context_2_max_n_key_2_seed_9").empty());
}

TEST_CASE("only joint recall has a text form") {
  const Scratch scratch;
  TaskConfig task;
  task.name = TaskKind::mqar;
  DataConfig data;
  data.train_examples = data.valid_examples = data.test_examples = 2;
  GenerateOptions options;
  options.out = scratch / "d";
  generate_dataset(task, data, options);
  CHECK(mentions(message_of<UsageError>([&] { export_text(scratch / "d", scratch / "text", 1); }), "mqar"));
}

TEST_CASE("a drawing shows every token with its role and marks the scored ones") {
  const auto joint = make_task(small_task());
  // contexts 28 29, keys 26 27: a table of one context and two keys
  const Example example = {{1, 28, 27, 12, 26, 10, 4, 28, 26, 10, 27, 12}, {8, 10}, {10, 12}, {1, 2}};
  const std::string expected =
      "joint_recall, n_context 1, n_key 2, 12 tokens, 2 scored\n"
      "symbol(id); ? marks a scored position, [ ] its answer\n"
      "     0  bos              BOS(1)\n"
      "     1  context          c0(28) k1(27)=v2(12) k0(26)=v0(10)\n"
      "     6  separator        SEP(4)\n"
      "     7  query context    c0(28) k0(26)? [v0]=v0(10) k1(27)? [v2]=v2(12)\n";
  CHECK(draw(*joint, example) == expected);
  Example broken = example;
  broken.tokens[3] = 11;
  CHECK_THROWS_AS(draw(*joint, broken), DataError);

  TaskConfig task;
  task.name = TaskKind::mqar;
  task.mqar.vocab_size = 20;
  task.mqar.input_seq_len = {8};
  task.mqar.num_kv_pairs = {2};
  const Example recall = {{7, 14, 2, 11, 2, 5, 7, 19}, {4, 6}, {11, 14}, {2, 8}};
  CHECK(draw(*make_task(task), recall) ==
        "mqar, num_kv_pairs 2, input_seq_len 8, 8 tokens, 2 scored\n"
        "symbol(id); ? marks a scored position, [ ] its answer\n"
        "     0  pair key         k7(7)=v4(14) k2(2)=v1(11)\n"
        "     4  query            k2(2)? [v1]\n"
        "     5  filler           5\n"
        "     6  query            k7(7)? [v4]\n"
        "     7  filler           19\n");
}

TEST_CASE("long drawings wrap") {
  const auto task = make_task(TaskConfig{});
  Example example;
  draw_example(*task, 1, Split::train, 143, 0, example);
  const std::string text = draw(*task, example);
  size_t start = 0;
  int lines = 0;
  while (start < text.size()) {
    const size_t end = text.find('\n', start);
    REQUIRE(end - start <= 130);  // a question keeps its answer beside it
    start = end + 1;
    ++lines;
  }
  CHECK(lines > 34);
}
