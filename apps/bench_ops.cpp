// hax bench scan|ssd|conv|attention: the shapes on the command line, the table on stdout.
#include <map>

#include "apps/bench.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/bench/ops.h"
#include "lib/config/names.h"
#include "lib/model/device.h"

namespace hax {
namespace {

struct Options {
  BenchOp op = BenchOp::scan;
  std::vector<int64_t> batches{64}, lengths{1057};
  std::string kind = "padded", dtype, device = "auto";
  std::vector<std::string> patterns{"lsh", "key_selection"};
  OpSizes sizes;
  TimingOptions timing;
  int64_t seed = 1;
  int threads = 0;
  bool fused_only = false, json = false;
};

// Lengths pair with batches; one batch goes with every length.
std::vector<SequenceShape> sequences(const Options& o) {
  if (o.batches.size() != 1 && o.batches.size() != o.lengths.size())
    throw UsageError("--batch: " + std::to_string(o.batches.size()) + " values beside " +
                     std::to_string(o.lengths.size()) + " of --length; give one, or one for each length");
  const LengthKind kind = o.kind == "padded" ? LengthKind::padded : LengthKind::joint_recall;
  std::vector<SequenceShape> shapes;
  for (size_t i = 0; i < o.lengths.size(); ++i)
    shapes.push_back({o.batches.size() == 1 ? o.batches[0] : o.batches[i], o.lengths[i], kind});
  return shapes;
}

SparseConfig sparse(const Options& o) {
  SparseConfig sparse = o.sizes.sparse;
  sparse.patterns.clear();
  for (const std::string& name : o.patterns) {
    const auto kind = value_of<PatternKind>(name);
    if (!kind)
      throw UsageError("--patterns: \"" + name + "\" is no pattern; there are " + all_names<PatternKind>());
    sparse.patterns.push_back(*kind);
  }
  if (sparse.share(0) < 1)
    throw UsageError("--k: " + std::to_string(sparse.k) + " leaves no key for each of " +
                     std::to_string(sparse.patterns.size()) + " patterns");
  return sparse;
}

int run(const Options& o) {
  if (o.op == BenchOp::ssd && o.sizes.heads % o.sizes.groups != 0)
    throw UsageError("--groups: " + std::to_string(o.sizes.groups) + " does not divide --heads " +
                     std::to_string(o.sizes.heads));
  OpBench bench;
  bench.op = o.op;
  bench.sequences = sequences(o);
  bench.sizes = o.sizes;
  bench.sizes.sparse = sparse(o);
  bench.device = choose_device(*value_of<DeviceKind>(o.device), "--device");
  const std::string dtype = !o.dtype.empty() ? o.dtype : bench.device.is_cuda() ? "bf16" : "fp32";
  bench.dtype = dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  bench.timing = o.timing;
  bench.composite = !o.fused_only;
  bench.seed = static_cast<uint64_t>(o.seed);
  at::set_num_threads(o.threads > 0 ? o.threads : hardware_threads());
  print_result(bench_ops(bench).render(o.json ? TableFormat::json : TableFormat::text));
  return 0;
}

const CLI::Range kCount(int64_t{1}, int64_t{1} << 40);

// A size of the op, at least 1.
void add_size(CLI::App& command, const char* flag, int64_t& value, const char* meaning) {
  command.add_option(flag, value, meaning)->group("Shape")->check(kCount)->capture_default_str();
}

void add_common(CLI::App& command, Options& o) {
  command.add_option("--batch", o.batches, "Sequences; several go with as many lengths")
      ->group("Shape")
      ->delimiter(',')
      ->check(kCount)
      ->capture_default_str();
  command.add_option("--length", o.lengths, "Tokens of the longest sequence; several: one shape each")
      ->group("Shape")
      ->delimiter(',')
      ->check(kCount)
      ->capture_default_str();
  command
      .add_option("--lengths", o.kind,
                  "padded: all sequences full; joint_recall: as the paper's data, 44 % full on average")
      ->group("Shape")
      ->check(CLI::IsMember({"padded", "joint_recall"}))
      ->capture_default_str();
  command.add_option("--dtype", o.dtype, "bf16 or fp32 (default: bf16 on a GPU, fp32 on a CPU)")
      ->group("Machine")
      ->check(CLI::IsMember({"bf16", "fp32"}));
  command.add_option("--device", o.device, "auto, cpu or cuda")
      ->group("Machine")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command.add_option("--threads", o.threads, "CPU threads; 0: all")
      ->group("Machine")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command.add_option("--repeat", o.timing.repeat, "Measured runs; fewer where they take over 5 s")
      ->check(kCount)
      ->capture_default_str();
  command.add_option("--warmup", o.timing.warmup, "Runs before them")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
  command.add_option("--seed", o.seed, "Of the random inputs")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_flag("--fused-only", o.fused_only, "Leave the composite path out");
  command.add_flag("--json", o.json, "As JSON");
}

std::shared_ptr<Options> add(CLI::App& bench, Action& action, BenchOp op, const char* name, const char* about,
                             CLI::App*& command) {
  auto o = std::make_shared<Options>();
  o->op = op;
  command = bench.add_subcommand(name, about);
  command->callback([o, &action] { action = [o] { return run(*o); }; });
  return o;
}

}  // namespace

void add_bench_ops(CLI::App& bench, Action& action) {
  CLI::App* command = nullptr;
  auto o = add(bench, action, BenchOp::scan, "scan", "Mamba's selective scan", command);
  add_size(*command, "--d-inner", o->sizes.d_inner, "Channels");
  add_size(*command, "--d-state", o->sizes.d_state, "States of a channel");
  add_common(*command, *o);
  command->footer("Example: hax bench scan --length 512,1057 --lengths joint_recall");

  o = add(bench, action, BenchOp::ssd, "ssd", "Mamba2's scan", command);
  o->sizes.d_state = 32;
  add_size(*command, "--heads", o->sizes.heads, "Heads");
  add_size(*command, "--head-dim", o->sizes.head_dim, "Channels of a head");
  add_size(*command, "--groups", o->sizes.groups, "Groups of heads that share B and C");
  add_size(*command, "--d-state", o->sizes.d_state, "States of a channel");
  add_size(*command, "--chunk", o->sizes.chunk, "Tokens of a chunk of the composite path");
  add_common(*command, *o);
  command->footer("Example: hax bench ssd --batch 64,1 --length 1057,16384");

  o = add(bench, action, BenchOp::conv, "conv", "The causal depthwise convolution with SiLU", command);
  add_size(*command, "--channels", o->sizes.channels, "Channels");
  add_size(*command, "--width", o->sizes.width, "Taps");
  add_common(*command, *o);
  command->footer("Example: hax bench conv --channels 1536 --batch 8 --length 4096");

  o = add(bench, action, BenchOp::attention, "attention", "Sparse attention, and choosing its keys", command);
  command->add_option("--patterns", o->patterns, "Any of " + all_names<PatternKind>())
      ->group("Shape")
      ->delimiter(',')
      ->capture_default_str();
  add_size(*command, "--k", o->sizes.sparse.k, "Keys of a query, split evenly over the patterns");
  command->add_option("--hash-bits", o->sizes.sparse.hash_bits, "LSH: 2^h bins")
      ->group("Shape")
      ->check(CLI::Range(1, 30))
      ->capture_default_str();
  add_size(*command, "--d-qk", o->sizes.d_qk, "Width of queries and keys");
  add_size(*command, "--d-v", o->sizes.d_v, "Width of values");
  add_common(*command, *o);
  command->footer("Example: hax bench attention --patterns full --batch 1 --length 16384");
}

}  // namespace hax
