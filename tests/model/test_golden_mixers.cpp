// The Mamba and Mamba2 mixers with every pattern against the official code's numbers (paper mode): outputs,
// the attention branch, the ranking loss and every gradient.
#include "lib/model/mixer.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

// Column "use" of the golden README, the largest over the files of this kind.
constexpr double kOutput = 6e-6, kInputGradient = 7e-6, kParameterGradient = 2e-5, kMlpGradient = 8e-6;

struct GoldenMixer {
  Safetensors file;
  ModelConfig config;
  std::vector<std::string> patterns;
  std::vector<int64_t> lengths;  // rows that the layout counts as real
  std::vector<int64_t> scored_lengths;
  int64_t L;

  explicit GoldenMixer(const std::string& name) : file(Safetensors::open(golden_path(name))) {
    auto number = [&](const char* key) {
      return nlohmann::json::parse(file.metadata().at(key)).get<int64_t>();
    };
    config.mode = Statistics::paper;
    config.mixer = {mixer_kind(file.metadata().at("arch"))};
    const bool mamba2 = config.has_mixer(MixerKind::mamba2);
    config.layers = 1;
    config.d_model = number("d_model");
    config.expand = number("d_inner") / config.d_model;
    config.d_state = number("d_state");
    if (mamba2) {
      config.n_heads = number("n_heads");
      config.n_groups = number("n_groups");
    } else {
      config.dt_rank = number("dt_rank");
    }
    config.sparse.k = number("k");
    config.sparse.hash_bits = number("num_hash");
    config.sparse.max_length = number("data_max_length");
    L = number("L");
    patterns = nlohmann::json::parse(file.metadata().at("patterns")).get<std::vector<std::string>>();
    scored_lengths = nlohmann::json::parse(file.metadata().at("real_lengths")).get<std::vector<int64_t>>();
    // The official Mamba2 skips its masks when the batch or the length is 1: padded rows are then real ones.
    lengths = scored_lengths;
    if (mamba2 && (lengths.size() == 1 || L == 1)) lengths.assign(lengths.size(), L);
  }

  // (B, L, ...) -> the rows that the layout counts as real.
  at::Tensor packed(const at::Tensor& padded) const {
    std::vector<at::Tensor> rows;
    for (size_t b = 0; b < lengths.size(); ++b) rows.push_back(padded[b].narrow(0, 0, lengths[b]));
    return at::cat(rows);
  }
  // (T, ...) -> the rows of really real positions, for comparison.
  at::Tensor real_rows(const at::Tensor& rows) const {
    std::vector<at::Tensor> kept;
    int64_t begin = 0;
    for (size_t b = 0; b < lengths.size(); ++b) {
      kept.push_back(rows.narrow(0, begin, scored_lengths[b]));
      begin += lengths[b];
    }
    return at::cat(kept);
  }
};

void check_pattern(const GoldenMixer& golden, const std::string& pattern) {
  CAPTURE(golden.file.path(), pattern);
  auto config = golden.config;
  set_patterns(pattern, config.sparse);
  ParameterSet parameters;
  const auto mixer = make_mixer(config, 0, 1, "", parameters);
  parameters.finish(at::kCPU, at::kFloat);
  for (const auto& p : parameters.all()) {
    const at::NoGradGuard no_grad;
    p->value.copy_(load_tensor(golden.file, "param." + p->name));
  }
  StoredDraws draws(true);
  const std::string at_pattern = pattern + "/";
  auto stored = [&](const std::string& name) { return load_tensor(golden.file, at_pattern + name); };
  if (golden.file.contains(at_pattern + "hash_matrix")) draws.hash_matrices[0] = stored("hash_matrix");
  if (golden.file.contains(at_pattern + "ks_sampled_positions"))
    draws.sampled[0] = stored("ks_sampled_positions");

  const auto layout = layout_of(golden.lengths, golden.L);
  auto x = golden.packed(load_tensor(golden.file, "hidden_states")).requires_grad_(true);
  const auto out = mixer->forward(x, layout, draws);
  CHECK(relative_error(golden.real_rows(out.hidden), golden.real_rows(golden.packed(stored("output")))) <=
        kOutput);
  if (golden.file.contains(at_pattern + "attn_states")) {
    const auto attended = golden.packed(stored("attn_states").transpose(1, 2));
    CHECK(relative_error(golden.real_rows(out.branch.attended), golden.real_rows(attended)) <= kOutput);
  }
  at::Tensor loss = (out.hidden * golden.packed(load_tensor(golden.file, "grad_output"))).sum();
  if (golden.file.contains(at_pattern + "gate_loss")) {
    REQUIRE(out.branch.aux_loss.defined());
    CHECK(relative_error(out.branch.aux_loss, stored("gate_loss")) <= kOutput);
    loss = loss + out.branch.aux_loss;
  } else {
    CHECK_FALSE(out.branch.aux_loss.defined());
  }
  loss.backward();
  CHECK(relative_error(x.grad(), golden.packed(stored("grad.hidden_states"))) <= kInputGradient);
  int compared = 0;
  for (const auto& p : parameters.all()) {
    if (is_noise(p->name)) continue;
    CAPTURE(p->name);
    ++compared;
    const bool mlp = p->name.find("dx_proj") != std::string::npos;
    CHECK(relative_error(p->value.grad(), stored("grad." + p->name)) <=
          (mlp ? kMlpGradient : kParameterGradient));
  }
  CHECK(compared >= 8);
}

}  // namespace

TEST_CASE("mixers meet the official code", "[golden]") {
  for (const char* prefix : {"mixer_mamba.", "mixer_mamba_", "mixer_mamba2"}) {
    const auto files = golden_files(prefix);
    REQUIRE(!files.empty());
    for (const auto& name : files) {
      const GoldenMixer golden(name);
      for (const auto& pattern : golden.patterns) check_pattern(golden, pattern);
    }
  }
}

}  // namespace hax::test
