// Combinations that cannot work: one change away from a configuration that can.
#include "lib/config/check.h"
#include "lib/base/error.h"
#include "lib/config/load.h"
#include "tests/catch.h"
#include "tests/config/scratch.h"

namespace hax {
namespace {

using Lines = std::vector<std::string>;

Lines refused(const Lines& sets) {
  try {
    load_config({}, sets);
  } catch (const UsageError& e) {
    Lines lines;
    const std::string text = e.what();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      lines.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    return lines;
  }
  return {};
}

TEST_CASE("a combination that cannot work is refused with its numbers; its neighbour is accepted") {
  struct Case {
    Lines base;         // settings that make room
    std::string good;   // at the edge, accepted
    std::string bad;    // one step over it
    std::string start;  // of the message
  };
  const std::vector<Case> table = {
      {{},
       "model.n_heads=4",
       "model.n_heads=3",
       "model.n_heads = 3 must divide model.d_inner = model.expand * model.d_model = 2 * 64 = 128"},
      {{},
       "model.d_model=72",
       "model.d_model=70",
       "model.n_heads = 8 must divide model.d_inner = model.expand * model.d_model = 2 * 70 = 140"},
      {{}, "model.n_groups=4", "model.n_groups=3", "model.n_groups = 3 must divide model.n_heads = 8"},
      {{},
       "task.joint_recall.n_context_min=16",
       "task.joint_recall.n_context_min=17",
       "task.joint_recall.n_context_min = 17 must be <= task.joint_recall.n_context_max = 16"},
      {{},
       "task.joint_recall.n_key_max=5",
       "task.joint_recall.n_key_max=4",
       "task.joint_recall.n_key_min = 5 must be <= task.joint_recall.n_key_max = 4"},
      {{},
       "task.joint_recall.vocab_size=58",
       "task.joint_recall.vocab_size=57",
       "task.joint_recall.vocab_size = 57 must be >= 10 reserved ids + n_value + n_key_max + n_context_max = "
       "10 + 16 + 16 + "
       "16 = 58"},
      {{"task.name=mqar"},
       "task.mqar.input_seq_len=32",
       "task.mqar.input_seq_len=33",
       "task.mqar.input_seq_len = 33 must be even"},
      {{"task.name=mqar"},
       "task.mqar.vocab_size=65",
       "task.mqar.vocab_size=64",
       "task.mqar.vocab_size = 64 must be > task.mqar.input_seq_len = 64"},
      {{"task.name=mqar"},
       "task.mqar.num_kv_pairs=16",
       "task.mqar.num_kv_pairs=17",
       "4 * task.mqar.num_kv_pairs = 4 * 17 = 68 must be <= task.mqar.input_seq_len = 64"},
      {{"task.name=mqar"},
       "task.mqar={input_seq_len: [64, 32], num_kv_pairs: [8, 8]}",
       "task.mqar={input_seq_len: [64, 32], num_kv_pairs: [8, 9]}",
       "4 * task.mqar.num_kv_pairs[1] = 4 * 9 = 36 must be <= task.mqar.input_seq_len[1] = 32"},
      {{"task.name=mqar", "task.mqar.input_seq_len=[64, 128]"},
       "task.mqar.num_kv_pairs=[4, 8]",
       "task.mqar.num_kv_pairs=[4]",
       "task.mqar.num_kv_pairs has 1 elements and must have as many as task.mqar.input_seq_len, 2"},
      {{"task.name=mqar", "task.mqar={input_seq_len: [64, 128], num_kv_pairs: [4, 8]}"},
       "task.mqar.weights=[100000, 20000]",
       "task.mqar.weights=[100000]",
       "task.mqar.weights has 1 elements and must have as many as task.mqar.input_seq_len, 2"},
      {{"task.name=mqar_compositional"},
       "task.mqar_compositional.num_kv_pairs=4",
       "task.mqar_compositional.num_kv_pairs=5",
       "task.mqar_compositional.num_kv_pairs = 5 must be a square"},
      {{"task.name=mqar_compositional"},
       "task.mqar_compositional.input_seq_len=54",
       "task.mqar_compositional.input_seq_len=52",
       "6 * task.mqar_compositional.num_kv_pairs = 6 * 9 = 54 must be <= "
       "task.mqar_compositional.input_seq_len = 52"},
      {{"task.name=mqar_forgetting"},
       "task.mqar_forgetting.num_updates=8",
       "task.mqar_forgetting.num_updates=9",
       "task.mqar_forgetting.num_updates = 9 must be <= task.mqar_forgetting.num_kv_pairs = 8"},
      {{"task.name=multilevel_joint_recall"},
       "task.multilevel_joint_recall.vocab_size=38",
       "task.multilevel_joint_recall.vocab_size=37",
       "task.multilevel_joint_recall.vocab_size = 37 must be >= 10 reserved ids + n_value + all levels = 38"},
      {{"task.name=multilevel_joint_recall", "train={batch_size: 1, eval_batch_size: 1}"},
       "task.multilevel_joint_recall.levels=[128, 128, 128]",
       "task.multilevel_joint_recall.levels=[200, 200, 200]",
       "task.multilevel_joint_recall.levels make an example of more than 16777216 tokens"},
      {{"task.name=noisy_joint_recall"},
       "task.noisy_joint_recall.length=73",
       "task.noisy_joint_recall.length=72",
       "task.noisy_joint_recall.length = 72 must be >= the largest table without noise, 2 * n_context_max * "
       "(2 * n_key_max + 1) + 1 = 73"},
      {{"task.name=noisy_joint_recall", "train={batch_size: 2048}"},
       "task.noisy_joint_recall.length=1048574",
       "task.noisy_joint_recall.length=1048575",
       "train.batch_size = 2048 times the longest example, length + 1 = 1048576 tokens, is 2147483648"},
      {{"task.name=selective_copying"},
       "task.selective_copying.n_data=4096",
       "task.selective_copying.n_data=4097",
       "task.selective_copying.n_data = 4097 must be <= task.selective_copying.length = 4096"},
      {{},
       "model.sparse.hash_bits=20",
       "model.sparse.hash_bits=21",
       "model.sparse.hash_bits = 21 must be <= 20 with model.sparse.hash_rule = sign"},
      {{"model.sparse.patterns=[lsh, sink, full]"},
       "model.sparse.k=3",
       "model.sparse.k=2",
       "model.sparse.k = 2 must be >= the number of model.sparse.patterns = 3"},
      {{},
       "model.sparse.patterns=[lsh, sink]",
       "model.sparse.patterns=[lsh, sink, lsh]",
       "model.sparse.patterns names lsh 2 times"},
      {{"model.sparse.patterns=[dilated, lsh]"},
       "model.sparse.max_length=32",
       "model.sparse.max_length=31",
       "model.sparse.max_length = 31 must be >= the share of `dilated`, model.sparse.k / number of patterns "
       "= 64 / 2 = 32"},
      {{"model.sparse.patterns=[lsh, key_selection]"},
       "model.sparse.k=4",
       "model.sparse.k=3",
       "the share of `key_selection`, model.sparse.k / number of patterns = 3 / 2 = 1, must be >= 2"},
      {{"model.sparse.patterns=[lsh, key_selection]"},
       "model.sparse.budgets=[1, 2]",
       "model.sparse.budgets=[2, 1]",
       "the share of `key_selection`, model.sparse.budgets[1] = 1, must be >= 2"},
      {{"model.sparse.patterns=[lsh, sink]"},
       "model.sparse.budgets=[7, 8]",
       "model.sparse.budgets=[7]",
       "model.sparse.budgets has 1 elements and must have one for each of 2 model.sparse.patterns"},
      {{"model.sparse.patterns=[lsh]"},
       "model.mixer=[attention, mamba]",
       "model.mixer=[attention]",
       "model.sparse.patterns needs a mixer with a sparse branch"},
      {{}, "model.mixer=mamba", "model.mixer=[]", "model.mixer = [] must name a mixer"},
      {{"model.mixer=[mamba, attention]"},
       "model.attention.n_heads=32",
       "model.attention.n_heads=3",
       "model.attention.n_heads = 3 must divide model.d_model = 64"},
      {{"model.mixer=[mamba, attention]"},
       "model.attention.n_heads=32",
       "model.attention.n_heads=64",
       "model.attention.rope = true rotates pairs of features"},
      {{"model={mixer: constructive, sparse: {patterns: [lsh], centring: none}}", "train.warmup_steps=0"},
       "train.steps=0",
       "train.steps=1",
       "model.mixer = constructive is a fixed solution of two layers: train.steps = 1 must be 0"},
      {{"model={mixer: constructive, sparse: {patterns: [lsh]}}", "train.steps=0"},
       "model.sparse.centring=none",
       "model.sparse.centring=running_mean",
       "model.mixer = constructive is a fixed solution of two layers: model.sparse.centring must be none"},
      {{"model={mixer: constructive, sparse: {centring: none}}", "train.steps=0"},
       "model.sparse.patterns=[lsh]",
       "model.sparse.patterns=[lsh, sink]",
       "model.mixer = constructive is a fixed solution of two layers: model.sparse.patterns must be [lsh]"},
      {{"model={mixer: constructive, sparse: {patterns: [lsh], centring: none}}", "train.steps=0"},
       "model.layers=2",
       "model.layers=3",
       "model.mixer = constructive is a fixed solution of two layers: model.layers = 3 must be 2"},
      {{"model={mixer: constructive, sparse: {patterns: [lsh], centring: none}}", "train.steps=0"},
       "model.sparse.d_qk=0",
       "model.sparse.d_qk=16",
       "model.mixer = constructive is a fixed solution of two layers: model.sparse.d_qk = 16 must be 0"},
      {{"model={sparse: {patterns: [lsh], centring: none}}", "train.steps=0"},
       "model.mixer=[constructive]",
       "model.mixer=[constructive, mamba2]",
       "model.mixer = constructive is a fixed solution of two layers: it goes with no other mixer"},
      {{"model.mode=paper"},
       "model.sparse.centring=running_mean",
       "model.sparse.centring=none",
       "model.sparse.centring = none needs model.mode = causal"},
      {{},
       "train.warmup_steps=2000",
       "train.warmup_steps=2001",
       "train.warmup_steps = 2001 must be <= train.steps = 2000"},
      {{"train.schedule=cosine"},
       "train.lr_min_ratio=0.1",
       "train={lr_min_ratio: 0.1, schedule: constant}",
       "train.lr_min_ratio = 0.1 needs train.schedule = cosine"},
      {{"data.source=stream", "train.batch_size=65536", "task.joint_recall.n_key_max=5"},
       "train.steps=65536",
       "train.steps=65537",
       "train.steps * train.batch_size = 65537 * 65536 = 4295032832 examples must be <= 4294967296"},
      {{"task.name=mqar", "task.mqar.vocab_size=16777216", "train.eval_batch_size=256"},
       "task.mqar.input_seq_len=8388606",
       "task.mqar.input_seq_len=8388608",
       "train.eval_batch_size = 256 times the longest example, input_seq_len = 8388608 tokens, is 2147483648 "
       "and must be <= "
       "2147483647"},
      {{"train.batch_size=65536", "task.joint_recall.n_context_max=100"},
       "task.joint_recall.n_key_max=81",
       "task.joint_recall.n_key_max=82",
       "train.batch_size = 65536 times the longest example, 2 * n_context_max * (2 * n_key_max + 1) + 2 = "
       "33002 tokens, is "
       "2162819072 and must be <= 2147483647"},
      // One context with one key: as many examples as values.
      {{"task.joint_recall={n_context_min: 1, n_context_max: 1, n_key_min: 1, n_key_max: 1}",
        "data={valid_examples: 3, test_examples: 3}"},
       "data.train_examples=10",
       "data.train_examples=11",
       "data.train_examples + data.valid_examples + data.test_examples ask for 17 distinct examples of 1 "
       "context(s) x 1 "
       "key(s) (an equal share for each of 1 table sizes), but with task.joint_recall.n_value = 16 only 16 "
       "exist"},
  };
  for (const Case& c : table) {
    INFO("good: " << c.good << ", bad: " << c.bad);
    Lines good = c.base, bad = c.base;
    good.push_back(c.good);
    bad.push_back(c.bad);
    CHECK(refused(good).empty());
    const Lines lines = refused(bad);
    REQUIRE(lines.size() == 1);
    const std::string place = "--set " + c.bad + ": ";
    INFO("message: " << lines[0]);
    CHECK(lines[0].substr(0, place.size()) == place);
    CHECK(lines[0].substr(place.size(), c.start.size()) == c.start);
  }
}

TEST_CASE("what a setting does not concern is not checked") {
  CHECK(refused({"task.mqar.input_seq_len=33"}).empty());  // another task
  CHECK(refused({"task.name=mqar", "task.joint_recall.n_key_max=4"}).empty());
  CHECK(refused({"model.sparse.max_length=1"}).empty());  // no dilated pattern
  CHECK(refused({"model.sparse={hash_bits: 21, hash_rule: argmax}"}).empty());
  CHECK(refused({"model.sparse={patterns: [key_selection], k: 1, ranking_weight: 0}"}).empty());
  CHECK(refused({"train.steps=4294967295", "train.batch_size=64"}).empty());  // data from files
  CHECK(refused({"data.source=stream", "task.joint_recall={n_context_min: 1, n_key_min: 1, n_value: 2000}"})
            .empty());
}

TEST_CASE("two keys that MQAR needs in the lower half of a small vocabulary") {
  const Lines lines =
      refused({"task.name=mqar", "task.mqar={vocab_size: 8, input_seq_len: 16, num_kv_pairs: 4}"});
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].find("task.mqar.vocab_size = 8 must be > task.mqar.input_seq_len = 16") !=
        std::string::npos);
  CHECK(lines[1].find("task.mqar.num_kv_pairs = 4 distinct keys must be <= the ids 1 .. vocab_size / 2 - 1: "
                      "8 / 2 - 1 = 3") != std::string::npos);
}

TEST_CASE("the place is the last layer that set one of the keys") {
  const test::Scratch scratch;
  const std::string wide = scratch.write("wide.yaml", "model:\n  d_model: 70\n");
  const std::string heads = scratch.write("heads.yaml", "name: a\nmodel:\n  layers: 1\n  n_heads: 16\n");
  const auto place_of = [&](const Lines& files) {
    try {
      load_config(files, {});
    } catch (const UsageError& e) {
      const std::string text = scratch.relative(e.what());
      return text.substr(0, text.find(": "));
    }
    return std::string();
  };
  CHECK(place_of({wide}) == "wide.yaml:2");
  CHECK(place_of({wide, heads}) == "heads.yaml:4");
  CHECK(place_of({heads, wide}) == "wide.yaml:2");
}

TEST_CASE("a Config made in code is held to the fields' ranges") {
  Config config;
  CHECK(check(config).empty());
  config.model.n_heads = 0;
  config.train.lr = std::numeric_limits<double>::quiet_NaN();
  config.data.path = "a\xff";
  config.name = std::string(201, 'x');
  CHECK(check(config) == Lines{"name has 201 bytes; at most 200 are allowed",
                               "data.path = \"a\xff\" holds a byte that is not UTF-8 (0xff)",
                               "model.n_heads = 0 must be in its range: 1 <= x <= 65536",
                               "train.lr = nan must be finite and in its range: > 0"});
}

TEST_CASE("training needs a dataset folder, if only to validate on") {
  Config config;
  REQUIRE(check_for_training(config).size() == 1);
  CHECK(check_for_training(config)[0].starts_with("data.path is empty"));
  config.data.path = "data/x";
  CHECK(check_for_training(config).empty());
  config.data = {};
  config.data.source = DataSource::stream;
  REQUIRE(check_for_training(config).size() == 1);
  CHECK(check_for_training(config)[0].find("stream") != std::string::npos);
}

TEST_CASE("the ids and the padded length of the paper's joint recall") {
  const JointRecallConfig paper;
  CHECK(paper.ids() == 58);  // contexts end at id 57
  CHECK(paper.padded_tokens() == 1058);
}

}  // namespace
}  // namespace hax
