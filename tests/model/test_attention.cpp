// The attention mixer and the gated MLP against their definitions, and their gradients.
#include "lib/model/attention.h"

#include <cmath>

#include "lib/model/gated_mlp.h"
#include "lib/ops/rope.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

ModelConfig attention_config(int64_t n_heads, int64_t window, bool rope) {
  ModelConfig config;
  config.mixer = {MixerKind::attention};
  config.d_model = 12;
  config.init_std = 0.5;
  config.attention = {n_heads, window, rope, 100.0};
  return config;
}

// The mixer as a function of x, W_q, W_k, W_v, W_o.
TensorFunction mixer_function(const ModelConfig& config, const ops::PackedLayout& layout) {
  return [=](const Tensors& in) {
    ParameterSet parameters;
    const auto mixer = make_mixer(config, 0, 1, "", parameters);
    // The mixer reads its weights through the set, so the leaves of the test can stand in for them.
    for (size_t i = 0; i < 4; ++i) parameters.all().at(i)->value = in[i + 1];
    return mixer->forward(in[0], layout, StoredDraws(true)).hidden;
  };
}

// Sequence by sequence, head by head, with a mask.
at::Tensor definition(const ModelConfig& config, const ops::PackedLayout& layout, const Tensors& in) {
  const int64_t H = config.attention.n_heads, P = config.d_model / H, window = config.attention.window;
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const int64_t L = layout.seqlen(b);
    const at::Tensor x = in[0].narrow(0, layout.offsets[b], L);
    const auto alone = layout_of({L});
    const auto heads = [&](const at::Tensor& weight, bool turn) {
      const at::Tensor split = x.mm(weight.t()).view({L, H, P});
      return (turn ? ops::rope(split, alone.position, config.attention.rope_theta, ops::Path::reference)
                   : split)
          .transpose(0, 1);  // (H, L, P)
    };
    const bool rope = config.attention.rope;
    const at::Tensor q = heads(in[1], rope), k = heads(in[2], rope), v = heads(in[3], false);
    const at::Tensor i = at::arange(L).view({L, 1}), j = at::arange(L).view({1, L});
    at::Tensor hidden = j > i;
    if (window > 0) hidden = hidden.logical_or(i - j >= window);
    const at::Tensor weights = at::softmax(
        (at::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(P))).masked_fill(hidden, -INFINITY),
        2);
    rows.push_back(at::matmul(weights, v).transpose(0, 1).reshape({L, H * P}).mm(in[4].t()));
  }
  return at::cat(rows);
}

Tensors attention_inputs(int64_t tokens) {
  Tensors inputs{random_normal({tokens, 12}, 1)};
  for (uint32_t i = 0; i < 4; ++i) inputs.push_back(random_normal({12, 12}, 2 + i) * 0.5);
  return inputs;
}

}  // namespace

TEST_CASE("attention is what its definition says, with its gradients") {
  const auto layout = layout_of({7, 1, 12, 3});
  const auto inputs = attention_inputs(23);
  const auto upstream = random_normal({23, 12}, 9);
  for (const int64_t n_heads : {1, 2, 3}) {
    for (const int64_t window : {0, 1, 4, 100}) {
      for (const bool rope : {false, true}) {
        CAPTURE(n_heads, window, rope);
        const auto config = attention_config(n_heads, window, rope);
        const auto expected = output_and_gradients(
            [&](const Tensors& in) { return definition(config, layout, in); }, inputs, upstream);
        const auto function = mixer_function(config, layout);
        const auto found = output_and_gradients(function, inputs, upstream);
        const auto single = output_and_gradients(function, converted(inputs, at::kFloat), upstream);
        for (size_t i = 0; i < expected.size(); ++i) {
          CAPTURE(i);
          CHECK(relative_error(found[i], expected[i]) <= 1e-12);
          // A window of one leaves one weight, 1: q and k get no gradient but rounding.
          if (window == 1 && (i == 2 || i == 3)) continue;
          CHECK(relative_error(single[i], expected[i]) <= 3e-6);
        }
      }
    }
  }
}

TEST_CASE("the gradients of attention are those of its finite differences") {
  const auto layout = layout_of({6, 1, 4});
  const auto inputs = attention_inputs(11);
  const auto upstream = random_normal({11, 12}, 9);
  for (const int64_t window : {0, 3}) {
    for (const bool rope : {false, true}) {
      const auto function = mixer_function(attention_config(2, window, rope), layout);
      const auto found = output_and_gradients(function, inputs, upstream);
      const auto expected = output_and_differences(function, inputs, upstream);
      for (size_t i = 0; i < expected.size(); ++i) CHECK(relative_error(found[i], expected[i]) <= 1e-7);
    }
  }
}

TEST_CASE("the gated MLP: width, value and gradients") {
  ModelConfig config;
  const auto width = [&](int64_t d_model, int64_t ratio) {
    config.d_model = d_model;
    config.mlp_ratio = ratio;
    return GatedMlp::width(config);
  };
  CHECK(width(32, 4) == 256);
  CHECK(width(64, 4) == 256);
  CHECK(width(96, 4) == 256);    // 256 exactly
  CHECK(width(97, 4) == 512);    // 258
  CHECK(width(512, 4) == 1536);  // 1365

  config.d_model = 5;
  config.mlp_ratio = 4;
  ParameterSet parameters;
  const GatedMlp layer(config, 0, 1, "", parameters);
  const auto mlp = [&](const Tensors& in) {
    for (size_t i = 0; i < 3; ++i) parameters.all().at(i)->value = in[i + 1];
    return layer.forward(in[0]);
  };
  const Tensors inputs{random_normal({4, 5}, 1), random_normal({256, 5}, 2), random_normal({256, 5}, 3),
                       random_normal({5, 256}, 4) * 0.1};
  const at::Tensor gate = inputs[0].mm(inputs[1].t()), up = inputs[0].mm(inputs[2].t());
  CHECK(relative_error(mlp(inputs), (gate / (1 + (-gate).exp()) * up).mm(inputs[3].t())) <= 1e-14);
  const auto upstream = random_normal({4, 5}, 9);
  const auto found = output_and_gradients(mlp, inputs, upstream);
  const auto expected = output_and_differences(mlp, inputs, upstream);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(relative_error(found[i], expected[i]) <= 1e-7);
}

TEST_CASE("Samba of the paper's size has the paper's number of parameters and names") {
  ModelConfig config;
  config.mixer = {MixerKind::mamba, MixerKind::attention};
  config.layers = 4;
  config.d_model = 32;
  config.d_state = 16;
  config.dt_rank = 8;
  config.mlp_ratio = 4;
  config.init_std = 0.02;
  config.attention.window = 64;
  const LanguageModel model(config, 100, 1, at::kCPU);
  CHECK(model.parameters().numel() == 131360);
  for (const char* name : {"layers.0.mixer_norm.weight", "layers.0.mlp_norm.weight", "layers.2.mixer.A_log",
                           "layers.1.mixer.q_proj.weight", "layers.3.mlp.down_proj.weight"}) {
    CAPTURE(name);
    CHECK(model.parameters().find(name) != nullptr);
  }
  CHECK(model.parameters().find("layers.0.norm.weight") == nullptr);
  const auto deviation = [&](const char* name) {
    return model.parameters().find(name)->std().item<double>();
  };
  CHECK(deviation("layers.1.mlp.up_proj.weight") == Approx(0.02).epsilon(0.05));
  CHECK(deviation("layers.1.mixer.o_proj.weight") == Approx(0.02).epsilon(0.1));
}

}  // namespace hax::test
