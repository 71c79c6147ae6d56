// A run that is interrupted anywhere and goes on ends with the bytes of one that is not.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/train/collect_runs.h"
#include "lib/train/kept_checkpoints.h"
#include "lib/train/verify_resume.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kEndless = -1;  // the size of a stream

std::vector<VerifiedResume> verify(const Config& config, int64_t at, int64_t examples, at::Device device) {
  const TemporaryFolder folder;
  const ToySource training(1, examples), validation(2, 64);
  VerifyOptions options;
  options.folder = folder.path();
  options.at = at;
  return verify_resume(config, training, validation, device, options);
}

// What is said on stderr while it lives.
class CaughtTalk {
 public:
  CaughtTalk() : before_(::dup(STDERR_FILENO)) {
    const int fd = ::open(file_.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(fd, STDERR_FILENO);
    ::close(fd);
  }
  ~CaughtTalk() {
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
  }
  std::string text() const { return slurp(file_); }

 private:
  TemporaryFolder folder_;
  const std::string file_ = folder_.file("talk");
  const int before_;
};

void check_equal(const std::vector<VerifiedResume>& verified) {
  REQUIRE(verified.size() == 2);
  for (const auto& run : verified) {
    CAPTURE(run.how, run.from);
    std::set<std::string> names;
    for (const auto& file : run.files) {
      CAPTURE(file.name);
      CHECK(file.difference == "");
      CHECK(file.bytes > 0);
      names.insert(file.name);
    }
    for (const char* name : {"checkpoints/last.safetensors", "checkpoints/best.safetensors", "config.yaml",
                             "metrics.jsonl", "result.json"})
      CHECK(names.count(name) == 1);
  }
}

}  // namespace

TEST_CASE(
    "interrupted at any step, in both modes, on files and streams, on one thread and two: the same bytes") {
  struct Case {
    Statistics mode;
    int64_t examples, threads;
    std::vector<int64_t> at;
  };
  // Before the first checkpoint, at one, at a validation, between them, and before the last step.
  for (const Case& c : {Case{Statistics::causal, 50, 1, {1, 4, 5, 7, 10, 14}},
                        {Statistics::paper, 50, 1, {3, 5, 9}},
                        {Statistics::causal, kEndless, 1, {2, 11}},
                        {Statistics::paper, kEndless, 2, {6}}}) {
    Config config = toy_config();
    config.model.mode = c.mode;
    config.train.steps = 15;
    config.train.validate_every = 5;
    config.train.checkpoint_every = 4;
    config.train.threads = c.threads;
    for (const int64_t at : c.at) {
      CAPTURE(static_cast<int>(c.mode), c.examples, c.threads, at);
      const auto verified = verify(config, at, c.examples, at::kCPU);
      check_equal(verified);
      CHECK(verified[0].from == at);
      CHECK(verified[1].from == (at - 1) / 4 * 4);  // killed before the save
    }
  }
}

TEST_CASE("a step outside the run cannot be where it is interrupted") {
  for (const int64_t at : {int64_t{0}, int64_t{30}, int64_t{31}})
    CHECK_THROWS_AS(verify(toy_config(), at, 50, at::kCPU), UsageError);
}

TEST_CASE("another checkpoint interval changes no weight, moment or metric") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  Config config = toy_config();
  run_toy(whole, config);
  const int64_t intervals[] = {2, 5, 3, 1};
  for (int i = 0; i < 4; ++i) {
    config.train.checkpoint_every = intervals[i];
    CHECK(run_toy(path, config, stop_at(6 * (i + 1) + 1)).end == TrainEnd::stopped);
  }
  CHECK(run_toy(path, config).end == TrainEnd::finished);
  CHECK(read_file(path + "/metrics.jsonl") == read_file(whole + "/metrics.jsonl"));
  for (const char* name : {"/checkpoints/last.safetensors", "/checkpoints/best.safetensors"}) {
    const auto a = read_checkpoint(whole + name, at::kCPU), b = read_checkpoint(path + name, at::kCPU);
    CHECK(at::equal(a.model->parameters().flat(), b.model->parameters().flat()));
    CHECK(a.info.step == b.info.step);
    CHECK(a.info.best_accuracy == b.info.best_accuracy);
    if (a.optimizer.exp_avg.defined()) {
      CHECK(at::equal(a.optimizer.exp_avg, b.optimizer.exp_avg));
      CHECK(at::equal(a.optimizer.exp_avg_sq, b.optimizer.exp_avg_sq));
    }
  }
}

TEST_CASE("a run killed between its last checkpoint and its result ends as it had") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  Config config = toy_config();
  config.train.target_accuracy = 0.2;
  REQUIRE(run_toy(whole, config).end == TrainEnd::target_reached);
  REQUIRE(run_toy(path, config).result.step < config.train.steps);
  fs::remove(path + "/result.json");
  CHECK(run_toy(path, config).end == TrainEnd::target_reached);
  CHECK(differences(whole, path) == "");
}

TEST_CASE("a torn last line of metrics is written again, and says nothing") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  run_toy(whole, toy_config());
  run_toy(path, toy_config(), stop_at(16));
  const std::string metrics = path + "/metrics.jsonl", timing = path + "/timing.jsonl";
  const double seconds = RunFolder::open(path).seconds_so_far();
  spill(metrics, slurp(metrics) + R"({"kind":"train","step":18,"lo)");
  spill(timing, slurp(timing) + R"({"sec)");
  CHECK(RunFolder::open(path).progress().step == 15);
  run_toy(path, toy_config());
  CHECK(differences(whole, path) == "");
  CHECK(RunFolder::open(path).seconds_so_far() > seconds);
  CHECK(RecordLog(timing).records().size() == 6);  // steps 7, 14 and 16; 21, 28 and 30
  CHECK_FALSE(fs::exists(metrics + ".damaged"));
}

TEST_CASE("damage inside the metrics is named, and the file as it was stays") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", metrics = path + "/metrics.jsonl";
  run_toy(path, toy_config(), stop_at(16));
  std::string text = slurp(metrics);
  const size_t second = text.find('\n') + 1;
  text[second + 3] = '\0';
  text[second] = 'x';
  spill(metrics, text);
  run_toy(path, toy_config());
  CHECK(slurp(metrics + ".damaged") == text);
  std::vector<int64_t> damaged;
  const auto records = RecordLog(metrics).records(&damaged);
  CHECK(damaged.empty());
  CHECK(records.size() == 10 + 3 - 1);
  CHECK(records[0].json["step"] == 3);
  CHECK(records[1].json["step"] == 9);
}

TEST_CASE("a digit that has changed in the metrics is damage") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", metrics = path + "/metrics.jsonl";
  run_toy(path, toy_config(), stop_at(16));
  std::string text = slurp(metrics);
  char& digit = text[text.find("\"loss\":", text.find('\n')) + 9];
  digit = digit == '1' ? '2' : '1';
  spill(metrics, text);
  {
    const CaughtTalk talk;
    RunFolder::open(path).progress();
    CHECK(contains(talk.text(), metrics + ": line 2 is damaged"));
  }
  run_toy(path, toy_config());
  CHECK(slurp(metrics + ".damaged") == text);
  CHECK(RecordLog(metrics).records().size() == 10 + 3 - 1);
}

TEST_CASE("damage that reaches the end of the metrics is named, and the file as it was stays") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", metrics = path + "/metrics.jsonl";
  run_toy(path, toy_config(), stop_at(16));
  std::string text = slurp(metrics);
  size_t third = 0;
  for (int line = 1; line < 3; ++line) third = text.find('\n', third) + 1;
  for (size_t i = third; i < text.size(); ++i) {
    if (text[i] == ':') text[i] = ';';
  }
  spill(metrics, text);
  {
    const CaughtTalk talk;
    CHECK(read_run(path).step == 6);
    CHECK(contains(talk.text(), metrics + ": line 3 and 3 more are damaged"));
  }
  const CaughtTalk talk;
  run_toy(path, toy_config());
  CHECK(contains(talk.text(), metrics + ": line 3 and 3 more are damaged"));
  CHECK(contains(talk.text(), metrics + ": the records of steps 7 to 16 are missing"));
  CHECK(slurp(metrics + ".damaged") == text);
}

TEST_CASE("metrics with CRLF ends lose nothing") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  run_toy(whole, toy_config());
  run_toy(path, toy_config(), stop_at(16));
  const std::string metrics = path + "/metrics.jsonl";
  std::string text;
  for (const char c : slurp(metrics)) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  spill(metrics, text);
  run_toy(path, toy_config());
  CHECK(differences(whole, path) == "");
}

TEST_CASE("damage in the timing is named, and the file as it was stays") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", timing = path + "/timing.jsonl";
  run_toy(path, toy_config(), stop_at(16));
  std::string text = slurp(timing);
  text.back() = '\0';
  spill(timing, text);
  const CaughtTalk talk;
  read_run(path);
  CHECK(contains(talk.text(), timing + ": line 3 is damaged and left out of the run's seconds"));
  run_toy(path, toy_config());
  CHECK(contains(talk.text(), timing + ".damaged"));
  CHECK(slurp(timing + ".damaged") == text);
  CHECK(RecordLog(timing).records().size() == 5);
}

TEST_CASE("a table tells of a run whose records end before it did, or are damaged") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", metrics = path + "/metrics.jsonl";
  REQUIRE(run_toy(path, toy_config()).end == TrainEnd::finished);
  const std::string whole = slurp(metrics);
  const double accuracy = read_run(path).valid_accuracy;
  const auto said_of = [&](const std::string& text) {
    spill(metrics, text);
    const CaughtTalk talk;
    const RunRecord run = read_run(path);
    CHECK((run.step == 30 && run.valid_accuracy == accuracy));
    return talk.text();
  };
  CHECK(said_of(whole) == "");
  const std::string missing = metrics + ": records are missing at its end: the last validation in it is ";
  // The last validation alone, whole or torn, and all behind the first third.
  const size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (const size_t length : {last, last + 9, whole.size() - 3}) {
    CAPTURE(length);
    CHECK(contains(said_of(whole.substr(0, length)),
                   missing + "of step 20, and by result.json there was one at step 30"));
  }
  CHECK(contains(said_of(whole.substr(0, whole.find('\n') + 1)), missing + "none"));
  CHECK(contains(said_of(""), missing + "none"));
  std::string damaged = whole;
  damaged[last + 5] ^= 1;
  CHECK(contains(said_of(damaged), metrics + ": line 13 is damaged"));
  CHECK(contains(said_of(damaged), missing + "of step 20"));
  damaged = whole;
  damaged[3] ^= 1;
  CHECK(contains(said_of(damaged), metrics + ": line 1 is damaged"));
  CHECK_FALSE(contains(said_of(damaged), "missing"));
}

TEST_CASE("records that are missing before the checkpoint are told of") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", metrics = path + "/metrics.jsonl";
  run_toy(path, toy_config(), stop_at(16));
  const std::string text = slurp(metrics);
  const size_t second = text.find('\n') + 1;
  const auto talk_of_resuming = [&] {
    const CaughtTalk talk;
    run_toy(path, toy_config(), stop_at(16));
    return talk.text();
  };
  CHECK_FALSE(contains(talk_of_resuming(), "missing"));
  spill(metrics, text.substr(0, second + 20));  // torn
  CHECK(contains(talk_of_resuming(), metrics + ": the records of steps 4 to 16 are missing"));
  fs::remove(metrics);
  CHECK(contains(talk_of_resuming(), metrics + ": the records of steps 1 to 16 are missing"));
}

TEST_CASE("a run does not go on under another config than its checkpoint's, and no table believes it") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", config = path + "/config.yaml";
  Config started = toy_config();
  started.train.keep_last = 3;
  run_toy(path, started, stop_at(16));
  const std::string original = slurp(config);
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = original;
    REQUIRE(contains(text, from));
    spill(config, text.replace(text.find(from), from.size(), to));
    return RunFolder::open(path).config();
  };
  for (const auto& [from, to, named] : {std::array{"lr: 0.005", "lr: 0.007", "train.lr: 0.005 -> 0.007"},
                                        {"d_state: 4", "d_state: 5", "model.d_state: 4 -> 5"},
                                        {"mode: causal", "mode: paper", "model.mode: causal -> paper"}}) {
    CAPTURE(named);
    const Config other = edited(from, to);
    const std::string refusal = message_of<DataError>([&] { run_toy(path, other); });
    CHECK((contains(refusal, config) && contains(refusal, named)));
    CHECK(contains(message_of<DataError>([&] { read_run(path); }), named));
  }
  // What may change may.
  const Config slower = edited("checkpoint_every: 7", "checkpoint_every: 9");
  CHECK_NOTHROW(read_run(path));
  // A run whose last checkpoint is gone has begun all the same.
  spill(config, original);
  fs::remove(path + "/checkpoints/last.safetensors");
  fs::remove(path + "/metrics.jsonl");
  Config other = started;
  other.train.lr = 7e-3;
  CHECK_THROWS_AS(run_toy(path, other), UsageError);
  CHECK(slurp(config) == original);
  {
    const CaughtTalk talk;
    CHECK(run_toy(path, started).end == TrainEnd::finished);
    CHECK(contains(talk.text(), "last.safetensors: is missing"));
  }
  fs::remove(config);
  CHECK(contains(message_of<DataError>([&] { run_toy(path, started); }), "config.yaml is missing"));
}

TEST_CASE("a digit that has changed in the result is damage") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", result = path + "/result.json";
  REQUIRE(run_toy(path, toy_config()).end == TrainEnd::finished);
  const double accuracy = RunFolder::open(path).result()->best_accuracy;
  std::string text = slurp(result);
  const std::string whole = text;
  const size_t at = text.find(": ", text.find("best_accuracy")) + 2;
  text[at] = text[at] == '1' ? '0' : '1';
  spill(result, text);
  const std::string refusal = message_of<DataError>([&] { RunFolder::open(path).result(); });
  CHECK((contains(refusal, result) && contains(refusal, "checksum")));
  // Results without a checksum are older.
  const size_t key = whole.find("  \"checksum\"");
  REQUIRE(key != std::string::npos);
  spill(result, whole.substr(0, key) + whole.substr(whole.find('\n', key) + 1));
  CHECK(RunFolder::open(path).result()->best_accuracy == accuracy);
}

TEST_CASE("what stands where a run writes its files is met before the first step") {
  const TemporaryFolder folder;
  for (const char* name :
       {"checkpoints/last.safetensors", "checkpoints/best.safetensors", "result.json", "metrics.jsonl"}) {
    CAPTURE(name);
    const std::string path = folder.path() + "/for " + fs::path(name).stem().string();
    run_toy(path, toy_config(), stop_at(0));
    fs::remove(path + "/" + name);
    fs::create_symlink(folder.path() + "/elsewhere", path + "/" + name);
    bool stepped = false;
    const std::string refusal = message_of<RuntimeError>(
        [&] { run_toy(path, toy_config(), [&](int64_t step) { return stepped = step > 0; }); });
    CHECK((contains(refusal, name) && contains(refusal, "no regular file")));
    CHECK_FALSE(stepped);
    CHECK_FALSE(fs::exists(folder.path() + "/elsewhere"));
  }
}

TEST_CASE("comparing runs names the first difference") {
  const TemporaryFolder folder;
  const std::string a = folder.path() + "/a", b = folder.path() + "/b";
  run_toy(a, toy_config());
  run_toy(b, toy_config());
  CHECK(differences(a, b) == "");
  CHECK(compare_runs(a, b).size() >= 6);

  const std::string last = "/checkpoints/last.safetensors";
  auto loaded = read_checkpoint(b + last, at::kCPU);
  {
    const at::NoGradGuard no_grad;
    loaded.model->parameters().find("layers.1.norm.weight")->select(0, 5).add_(0.5);
    loaded.optimizer.exp_avg_sq.select(0, 0).add_(1.0);
  }
  write_checkpoint(b + last, *loaded.model, loaded.info, &loaded.optimizer);
  CHECK(contains(differences(a, b), "2 of "));
  CHECK(contains(differences(a, b), "layers.1.norm.weight, element 5: "));

  loaded = read_checkpoint(a + last, at::kCPU);
  loaded.info.tokens_seen += 1;
  write_checkpoint(b + last, *loaded.model, loaded.info, &loaded.optimizer);
  CHECK(contains(differences(a, b), "metadata 'state'"));

  write_checkpoint(b + last, *loaded.model, loaded.info, nullptr);
  CHECK(contains(differences(a, b), " tensors against "));
  fs::copy_file(a + last, b + last, fs::copy_options::overwrite_existing);

  std::string metrics = slurp(b + "/metrics.jsonl");
  metrics[metrics.find("\"loss\":", metrics.find('\n')) + 7] = '9';
  spill(b + "/metrics.jsonl", metrics);
  CHECK(contains(differences(a, b), "metrics.jsonl: line 2: {"));
  fs::remove(b + "/metrics.jsonl");
  CHECK(contains(differences(a, b), "only the first run has it"));
}

TEST_CASE("a GPU run that is interrupted goes on to the same bytes", "[gpu]") {
  struct Case {
    Precision precision;
    Statistics mode;
    int64_t examples;
    std::vector<int64_t> at;
  };
  for (const Case& c : {Case{Precision::bf16, Statistics::causal, 50, {7, 29}},
                        {Precision::bf16, Statistics::paper, kEndless, {12, 29}},
                        {Precision::fp32, Statistics::causal, 50, {20}}}) {
    Config config = captured_config();
    config.model.mode = c.mode;
    config.train.precision = c.precision;
    config.train.steps = 40;
    config.train.validate_every = 15;
    config.train.checkpoint_every = 12;
    for (const int64_t at : c.at) {
      CAPTURE(static_cast<int>(c.precision), static_cast<int>(c.mode), at);
      CaughtTalk talk;
      check_equal(verify(config, at, c.examples, at::kCUDA));
      CHECK_FALSE(contains(talk.text(), "op by op"));  // bf16 is captured; fp32 never tries
    }
  }
}

}  // namespace hax::test
