// The sparse branch from given K, Q and V on: against the official code's numbers (paper mode), and what the
// causal mode promises.
#include "lib/model/sparse_branch.h"

#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

// Column "use" of the golden README, the largest over the files of this kind.
constexpr double kTolerance = 6e-6, kScoreTolerance = 8e-6, kMlpGradient = 8e-6;

ops::ScoreMlp golden_mlp(const Safetensors& file) {
  const auto weight = [&](const char* name) {
    return load_tensor(file, std::string("param.dx_proj_") + name).requires_grad_(true);
  };
  return {weight("1.weight"), weight("1.bias"),   weight("2.weight"),
          weight("2.bias"),   weight("3.weight"), weight("3.bias")};
}

// A golden mixer's branch: the layout whose rows the official code counts as real, and tensors in packed
// form.
struct GoldenBranch {
  Safetensors file;
  ModelConfig config;
  std::vector<std::string> patterns;
  std::vector<int64_t> lengths, real_lengths;
  int64_t L;

  explicit GoldenBranch(const std::string& name) : file(Safetensors::open(golden_path(name))) {
    const auto value = [&](const char* key) { return nlohmann::json::parse(file.metadata().at(key)); };
    config.mode = Statistics::paper;
    config.d_state = value("d_state");
    config.sparse.k = value("k");
    config.sparse.hash_bits = value("num_hash");
    config.sparse.max_length = value("data_max_length");
    L = value("L");
    patterns = value("patterns").get<std::vector<std::string>>();
    real_lengths = value("real_lengths").get<std::vector<int64_t>>();
    lengths = real_lengths;
    // Mamba2's masks are skipped when the batch is 1: what looks like padding takes part like any token.
    if (file.metadata().at("arch") == "mamba2" && lengths.size() == 1) lengths = {L};
  }

  at::Tensor packed(const at::Tensor& padded) const { return rows(padded, lengths); }
  at::Tensor real(const at::Tensor& padded) const { return rows(padded, real_lengths); }
  // The real positions' rows of a packed tensor.
  at::Tensor real_of_packed(const at::Tensor& tensor) const {
    return real(ops::to_padded(tensor, layout_of(lengths)));
  }
  at::Tensor real_mask(const at::Tensor& mask) const {  // (B, L, L) -> real rows, all keys
    return real(mask.to(at::kBool));
  }

 private:
  static at::Tensor rows(const at::Tensor& padded, const std::vector<int64_t>& lengths) {
    std::vector<at::Tensor> parts;
    for (size_t b = 0; b < lengths.size(); ++b) parts.push_back(padded[b].slice(0, 0, lengths[b]));
    return at::cat(parts);
  }
};

// (B, max_seqlen, max_seqlen) -> (B, L, L), nothing allowed in the padding.
at::Tensor widened(const at::Tensor& mask, int64_t L) {
  return at::constant_pad_nd(mask, {0, L - mask.size(2), 0, L - mask.size(1)});
}

void check_pattern(const GoldenBranch& golden, const std::string& pattern) {
  const Safetensors& file = golden.file;
  const auto load = [&](const std::string& name) { return load_tensor(file, pattern + "/" + name); };
  ModelConfig config = golden.config;
  set_patterns(pattern, config.sparse);
  const auto layout = layout_of(golden.lengths, golden.L);
  StoredDraws draws(true);
  if (file.contains(pattern + "/hash_matrix")) draws.hash_matrices[0] = load("hash_matrix");
  if (file.contains(pattern + "/ks_sampled_positions")) draws.sampled[0] = load("ks_sampled_positions");
  const ops::ScoreMlp mlp = golden_mlp(file);
  const BranchOutput out = branch_attention(
      config, 0, golden.packed(load_tensor(file, "branch.K")), golden.packed(load_tensor(file, "branch.Q")),
      golden.packed(load_tensor(file, "branch.V").transpose(1, 2)), mlp, layout, draws);

  CHECK(relative_error(golden.real_of_packed(out.attended),
                       golden.real(load("attn_states").transpose(1, 2))) <= kTolerance);

  ops::KeySet all;
  std::string rest = pattern;
  REQUIRE(out.records.size() == config.sparse.patterns.size());
  for (const PatternRecord& record : out.records) {
    const std::string part = rest.substr(0, rest.find('+'));
    rest = rest.substr(std::min(part.size() + 1, rest.size()));
    CAPTURE(part);
    all.memberships.push_back(record.keys.memberships.at(0));
    const at::Tensor mask = widened(ops::allowed_mask(record.keys, layout), golden.L);
    const std::string name = out.records.size() > 1 ? "mask." + part : "mask";
    CHECK(golden.real(mask).equal(golden.real_mask(load(name))));
    if (record.kind == PatternKind::lsh) {
      CHECK(relative_error(golden.real_of_packed(record.query_projection),
                           golden.real(load("hash_proj_q"))) <= kTolerance);
      CHECK(relative_error(golden.real_of_packed(record.key_projection), golden.real(load("hash_proj_k"))) <=
            kTolerance);
      CHECK(golden.real_of_packed(record.query_bin).equal(golden.real(load("hash_code_q"))));
      CHECK(golden.real_of_packed(record.key_bin).equal(golden.real(load("hash_code_k"))));
    }
    if (record.kind == PatternKind::key_selection) {
      CHECK(relative_error(golden.real_of_packed(record.summary), golden.real(load("ks_query_summary"))) <=
            kTolerance);
      CHECK(relative_error(golden.real_of_packed(record.scores), golden.real(load("ks_score"))) <=
            kScoreTolerance);
      CHECK(relative_error(record.targets, load("ks_target")) <= kTolerance);
      // ks_topk (B, L, share) lists the best of each prefix; entries behind the query are no keys.
      const at::Tensor topk = load("ks_topk"), i = at::arange(golden.L, at::kLong).view({1, -1, 1});
      const at::Tensor chosen = at::zeros({topk.size(0), golden.L, golden.L}, at::kBool)
                                    .scatter_(2, topk, true)
                                    .logical_and_(i.transpose(1, 2) <= i);
      CHECK(golden.real(mask).equal(golden.real(chosen)));
    }
  }
  CHECK(golden.real(widened(ops::allowed_mask(all, layout), golden.L)).equal(golden.real_mask(load("mask"))));

  REQUIRE(out.aux_loss.defined() == file.contains(pattern + "/gate_loss"));
  if (!out.aux_loss.defined()) return;
  CHECK(relative_error(out.aux_loss, load("gate_loss")) <= kTolerance);
  out.aux_loss.backward();
  CHECK(relative_error(mlp.w1.grad(), load("grad.dx_proj_1.weight")) <= kMlpGradient);
  CHECK(relative_error(mlp.b1.grad(), load("grad.dx_proj_1.bias")) <= kMlpGradient);
  CHECK(relative_error(mlp.w2.grad(), load("grad.dx_proj_2.weight")) <= kMlpGradient);
  CHECK(relative_error(mlp.b2.grad(), load("grad.dx_proj_2.bias")) <= kMlpGradient);
  CHECK(relative_error(mlp.w3.grad(), load("grad.dx_proj_3.weight")) <= kMlpGradient);
}

TEST_CASE("The branch is the official code's, stage by stage, for every stored pattern", "[golden]") {
  int checked = 0;
  for (const std::string& name : golden_files("mixer_")) {
    const GoldenBranch golden(name);
    for (const std::string& pattern : golden.patterns) {
      if (pattern == "none") continue;
      CAPTURE(name, pattern);
      check_pattern(golden, pattern);
      ++checked;
    }
  }
  CHECK(checked >= 20);
}

ModelConfig small_config(std::vector<PatternKind> patterns, Statistics mode) {
  ModelConfig config;
  config.mode = mode;
  config.d_model = 6;
  config.d_state = 8;
  config.sparse.patterns = std::move(patterns);
  config.sparse.k = 6;
  config.sparse.hash_bits = 2;
  config.sparse.max_length = 40;
  return config;
}

struct Inputs {
  at::Tensor K, Q, V;
};

Inputs random_inputs(int64_t T, const ModelConfig& config, uint32_t seed) {
  return {random_normal({T, config.d_qk()}, seed, at::kFloat),
          random_normal({T, config.d_qk()}, seed + 1, at::kFloat),
          random_normal({T, config.d_inner()}, seed + 2, at::kFloat)};
}

ops::ScoreMlp random_mlp(int64_t d, uint32_t seed) {
  const auto weight = [&](at::IntArrayRef sizes, uint32_t place) {
    return random_normal(sizes, seed + place, at::kFloat).requires_grad_(true);
  };
  return {weight({2 * d, 2 * d}, 0), weight({2 * d}, 1),    weight({2 * d, 2 * d}, 2),
          weight({2 * d}, 3),        weight({1, 2 * d}, 4), weight({1}, 5)};
}

BranchOutput run(const ModelConfig& config, const Inputs& in, const ops::ScoreMlp& mlp,
                 const ops::PackedLayout& layout, bool training = true) {
  const PhiloxDraws draws(3, 5, training, config.mode == Statistics::causal,
                          config.mode == Statistics::paper);
  return branch_attention(config, 1, in.K, in.Q, in.V, mlp, layout, draws);
}

std::vector<std::vector<PatternKind>> patterns_and_pairs() {
  const std::vector<PatternKind> kinds = {PatternKind::full, PatternKind::sliding_window,
                                          PatternKind::sink, PatternKind::dilated,
                                          PatternKind::lsh,  PatternKind::key_selection};
  std::vector<std::vector<PatternKind>> lists;
  for (size_t a = 0; a < kinds.size(); ++a) {
    lists.push_back({kinds[a]});
    for (size_t b = a + 1; b < kinds.size(); ++b) lists.push_back({kinds[a], kinds[b]});
  }
  return lists;
}

// Other numbers from position `from` of sequence 1 on.
Inputs changed_from(const Inputs& in, const ops::PackedLayout& layout, int64_t from) {
  const Inputs noise = {at::full_like(in.K, 0.7), at::full_like(in.Q, -0.4), at::full_like(in.V, 2.0)};
  const auto change = [&](const at::Tensor& x, const at::Tensor& by) {
    at::Tensor y = x.clone();
    const int64_t begin = layout.offsets[1] + from, end = layout.offsets[2];
    y.slice(0, begin, end).mul_(-1.5).add_(by.slice(0, begin, end));
    return y;
  };
  return {change(in.K, noise.K), change(in.Q, noise.Q), change(in.V, noise.V)};
}

TEST_CASE("causal: no output feels a later token, whatever the patterns") {
  const auto layout = layout_of({12, 35, 1, 20}, 40);
  for (const auto& patterns : patterns_and_pairs()) {
    for (HashRule rule : {HashRule::sign, HashRule::argmax}) {
      for (Centring centring : {Centring::running_mean, Centring::none}) {
        ModelConfig config = small_config(patterns, Statistics::causal);
        config.sparse.hash_rule = rule;
        config.sparse.centring = centring;
        const ops::ScoreMlp mlp = random_mlp(config.d_qk(), 50);
        const Inputs in = random_inputs(layout.total(), config, 60);
        const at::Tensor before = run(config, in, mlp, layout).attended;
        for (int64_t from : {1, 9, 34}) {
          const at::Tensor after = run(config, changed_from(in, layout, from), mlp, layout).attended;
          const int64_t place = layout.offsets[1] + from;
          CAPTURE(static_cast<int>(patterns.front()), static_cast<int>(patterns.back()), from);
          CHECK(bitwise_equal(after.slice(0, 0, place), before.slice(0, 0, place)));
          CHECK(bitwise_equal(after.slice(0, layout.offsets[2]), before.slice(0, layout.offsets[2])));
          CHECK(!after.slice(0, place, layout.offsets[2]).equal(before.slice(0, place, layout.offsets[2])));
        }
      }
    }
  }
}

TEST_CASE("paper: hashing looks into the future") {
  const auto layout = layout_of({12, 35, 1, 20}, 40);
  for (PatternKind kind : {PatternKind::lsh, PatternKind::key_selection}) {
    const ModelConfig config = small_config({kind}, Statistics::paper);
    const ops::ScoreMlp mlp = random_mlp(config.d_qk(), 50);
    const Inputs in = random_inputs(layout.total(), config, 60);
    const int64_t place = layout.offsets[1] + 30;
    const auto before = run(config, in, mlp, layout),
               after = run(config, changed_from(in, layout, 30), mlp, layout);
    CHECK(!after.attended.slice(0, layout.offsets[1], place)
               .equal(before.attended.slice(0, layout.offsets[1], place)));
    // Other sequences stay as they are.
    CHECK(bitwise_equal(after.attended.slice(0, 0, layout.offsets[1]),
                        before.attended.slice(0, 0, layout.offsets[1])));
  }
}

TEST_CASE("Queries without keys: zero under causal, uniform over the padded sequence under paper") {
  const auto layout = layout_of({35}, 40);
  const ModelConfig causal = small_config({PatternKind::dilated}, Statistics::causal);  // dilation 40 / 6 = 6
  const ModelConfig paper = small_config({PatternKind::dilated}, Statistics::paper);
  const Inputs in = random_inputs(35, causal, 70);
  const at::Tensor zero = run(causal, in, {}, layout).attended, uniform = run(paper, in, {}, layout).attended;
  CHECK(zero.slice(0, 0, 5).abs().max().item<double>() == 0.0);
  CHECK(relative_error(uniform.slice(0, 0, 5), (in.V.sum(0) / 40).expand({5, in.V.size(1)})) <= 1e-6);
  CHECK(bitwise_equal(zero.slice(0, 5), uniform.slice(0, 5)));
}

TEST_CASE("The ranking loss trains the MLP alone, and only while training") {
  const auto layout = layout_of({12, 2, 20}, 30);
  for (Statistics mode : {Statistics::causal, Statistics::paper}) {
    const ModelConfig config = small_config({PatternKind::lsh, PatternKind::key_selection}, mode);
    const ops::ScoreMlp mlp = random_mlp(config.d_qk(), 80);
    Inputs in = random_inputs(layout.total(), config, 90);
    for (at::Tensor* x : {&in.K, &in.Q, &in.V}) x->requires_grad_(true);
    const BranchOutput out = run(config, in, mlp, layout);
    REQUIRE(out.aux_loss.defined());
    CHECK(out.records[1].sampled.sizes() == at::IntArrayRef({3, 3}));
    out.aux_loss.backward();
    for (const at::Tensor& x : {in.K, in.Q, in.V}) CHECK(!x.grad().defined());
    CHECK(mlp.w1.grad().abs().max().item<double>() > 0);
    for (const at::Tensor& w : {mlp.w1, mlp.b1, mlp.w2, mlp.b2, mlp.w3, mlp.b3})
      w.mutable_grad() = at::Tensor();
    out.attended.sum().backward();
    for (const at::Tensor& x : {in.K, in.Q, in.V}) CHECK(x.grad().defined());
    for (const at::Tensor& w : {mlp.w1, mlp.b1, mlp.w2, mlp.b2, mlp.w3, mlp.b3}) CHECK(!w.grad().defined());
    CHECK(!run(config, in, mlp, layout, false).aux_loss.defined());
  }
}

TEST_CASE("Every key is selected while there are fewer than k") {
  const auto layout = layout_of({3, 2});
  const ModelConfig config = small_config({PatternKind::key_selection}, Statistics::causal);
  const BranchOutput out = run(config, random_inputs(5, config, 100), random_mlp(config.d_qk(), 110), layout);
  CHECK(ops::allowed_mask(out.records[0].keys, layout)
            .equal(ops::allowed_mask({{ops::FullMembership{}}}, layout)));
}

TEST_CASE("The budget is shared evenly, and must reach") {
  const auto layout = layout_of({20});
  ModelConfig config = small_config({PatternKind::sliding_window, PatternKind::sink}, Statistics::causal);
  config.sparse.k = 7;
  const Inputs in = random_inputs(20, config, 120);
  const BranchOutput out = run(config, in, {}, layout);
  for (const PatternRecord& record : out.records) {
    CHECK(ops::allowed_mask(record.keys, layout)[0][19].sum().item<int64_t>() == 3);
  }
  config.sparse.budgets = {5, 2};
  const BranchOutput uneven = run(config, in, {}, layout);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(ops::allowed_mask(uneven.records[i].keys, layout)[0][19].sum().item<int64_t>() ==
          config.sparse.budgets[i]);
  }
  config.sparse.budgets = {};
  config.sparse.k = 1;
  CHECK_THROWS_AS(run(config, in, {}, layout), std::invalid_argument);
}

TEST_CASE("SparseBranch projects, scales, attends and gates") {
  const auto layout = layout_of({12, 7});
  const ModelConfig config = small_config({PatternKind::lsh, PatternKind::key_selection}, Statistics::causal);
  ParameterSet parameters;
  const SparseBranch branch(config, 0, 4, "m.", parameters);
  std::string names;
  for (const auto& p : parameters.all()) names += p->name + " ";
  CHECK(names ==
        "m.E m.xx_proj.weight m.dx_proj_1.weight m.dx_proj_1.bias m.dx_proj_2.weight m.dx_proj_2.bias "
        "m.dx_proj_3.weight m.dx_proj_3.bias ");
  parameters.finish(at::kCPU, at::kFloat);
  {
    const at::NoGradGuard no_grad;
    const_cast<at::Tensor*>(parameters.find("m.E"))->copy_(random_normal({config.d_inner()}, 1, at::kFloat));
  }
  const at::Tensor u = random_normal({19, config.d_inner()}, 2, at::kFloat);
  const PhiloxDraws draws(1, 2, true, true, false);
  bool beside = false;
  const BranchOutput out = branch.forward(u, u, layout, draws, [&] { beside = true; });
  CHECK(beside);
  const at::Tensor KQ = u.mm(parameters.find("m.xx_proj.weight")->t());
  CHECK(relative_error(out.K, KQ.slice(1, 0, 8) / std::sqrt(8.0)) <= 1e-6);
  CHECK(relative_error(out.Q, KQ.slice(1, 8)) <= 1e-6);
  CHECK(out.E.equal(*parameters.find("m.E")));
  ((out.attended * out.E).square().sum() + out.aux_loss).backward();
  for (const auto& p : parameters.all()) {
    if (is_noise(p->name)) continue;
    CAPTURE(p->name);
    CHECK(p->value.grad().abs().max().item<double>() > 0);
  }
  // Without key selection there is no MLP.
  ParameterSet fewer;
  SparseBranch(small_config({PatternKind::lsh}, Statistics::causal), 0, 4, "m.", fewer);
  CHECK(fewer.all().size() == 2);
}

TEST_CASE("The branch on a GPU is that on the CPU", "[gpu]") {
  const auto lengths = random_lengths(6, 150, 14);
  const auto layout = layout_of(lengths, 160), device_layout = layout_of(lengths, 160, at::kCUDA);
  for (Statistics mode : {Statistics::causal, Statistics::paper}) {
    for (const auto& patterns : patterns_and_pairs()) {
      const ModelConfig config = small_config(patterns, mode);
      const Inputs in = random_inputs(layout.total(), config, 130);
      const ops::ScoreMlp mlp = random_mlp(config.d_qk(), 140);
      const auto there = [](const at::Tensor& x) { return x.detach().to(at::kCUDA); };
      const ops::ScoreMlp device_mlp{there(mlp.w1), there(mlp.b1), there(mlp.w2),
                                there(mlp.b2), there(mlp.w3), there(mlp.b3)};
      const BranchOutput cpu = run(config, in, mlp, layout);
      const BranchOutput gpu =
          run(config, {there(in.K), there(in.Q), there(in.V)}, device_mlp, device_layout);
      CAPTURE(static_cast<int>(patterns.front()), static_cast<int>(patterns.back()),
              mode == Statistics::paper);
      // A rounding error may move a projection or a score across its threshold: such rows are few.
      const at::Tensor error = (gpu.attended.cpu() - cpu.attended).abs().amax(1);
      CHECK((error > 1e-4).sum().item<int64_t>() <= layout.total() / 100);
      if (cpu.aux_loss.defined()) CHECK(relative_error(gpu.aux_loss, cpu.aux_loss) <= 1e-4);
    }
  }
}

}  // namespace
}  // namespace hax::test
