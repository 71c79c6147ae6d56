#include "lib/bench/op_case.h"

#include <algorithm>
#include <cmath>

#include "lib/base/random.h"
#include "lib/config/names.h"
#include "lib/model/patterns.h"
#include "lib/ops/causal_conv1d.h"
#include "lib/ops/key_scores.h"
#include "lib/ops/key_selection.h"
#include "lib/ops/lsh.h"
#include "lib/ops/selective_scan.h"
#include "lib/ops/sparse_attention.h"
#include "lib/ops/ssd.h"

namespace hax {
namespace {

using Tensors = std::vector<at::Tensor>;

// The tensors of one case, each from streams of its own.
class Inputs {
 public:
  Inputs(at::ScalarType dtype, at::Device device, uint64_t seed)
      : dtype_(dtype), device_(device), seed_(seed) {}

  // N(mean, std^2), in the case's dtype.
  at::Tensor normal(at::IntArrayRef sizes, double mean = 0.0, double std = 1.0) {
    return draw(sizes, mean, std).to(device_, dtype_);
  }
  // In fp32, as weights are held.
  at::Tensor weights(at::IntArrayRef sizes, double mean = 0.0, double std = 1.0) {
    return draw(sizes, mean, std).to(device_);
  }
  // -exp(N(0, 1)), fp32: decay rates.
  at::Tensor decay_rates(at::IntArrayRef sizes) { return -weights(sizes).exp(); }
  int64_t element_bytes() const { return static_cast<int64_t>(at::elementSize(dtype_)); }

 private:
  at::Tensor draw(at::IntArrayRef sizes, double mean, double std) {
    constexpr int64_t kTogether = 1 << 14;  // of a stream
    at::Tensor values = at::empty(sizes, at::TensorOptions().dtype(at::kFloat));
    float* data = values.mutable_data_ptr<float>();
    const int64_t n = values.numel(), blocks = (n + kTogether - 1) / kTogether;
    const uint32_t place = place_++;
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        RandomStream random({.seed = seed_, .layer = place, .index = static_cast<uint32_t>(block)});
        const int64_t last = std::min(n, (block + 1) * kTogether);
        for (int64_t i = block * kTogether; i < last; ++i)
          data[i] = static_cast<float>(mean + std * random.normal());
      }
    });
    return values;
  }

  at::ScalarType dtype_;
  at::Device device_;
  uint64_t seed_;
  uint32_t place_ = 0;
};

std::string listed(const std::vector<std::pair<const char*, int64_t>>& sizes) {
  std::string text;
  for (const auto& [name, value] : sizes)
    text += (text.empty() ? "" : ", ") + std::string(name) + " " + std::to_string(value);
  return text;
}

OpCase named(std::string op, std::string sizes, int64_t tokens) {
  OpCase c;
  c.op = std::move(op);
  c.sizes = std::move(sizes);
  c.tokens = tokens;
  return c;
}

constexpr double kStepBias = -2.0;  // softplus of N(-2, 1): steps of about 0.1

OpCase scan_case(const ops::PackedLayout& layout, const OpSizes& sizes, Inputs& make) {
  const int64_t T = layout.total(), d = sizes.d_inner, N = sizes.d_state;
  OpCase c = named("selective_scan", listed({{"d_inner", d}, {"d_state", N}}), T);
  c.inputs = {make.normal({T, d}),      make.normal({T, d}, kStepBias),
              make.decay_rates({d, N}), make.normal({T, N}),
              make.normal({T, N}),      make.weights({d}),
              make.weights({d})};
  c.forward = [layout](const Tensors& in, ops::Path path) {
    return ops::selective_scan({in[0], in[1], in[2], in[3], in[4], in[5], in[6]}, layout, path);
  };
  c.upstream = make.normal({T, d});
  c.work = selective_scan_work({T, d, N}, make.element_bytes());
  return c;
}

OpCase ssd_case(const ops::PackedLayout& layout, const OpSizes& sizes, Inputs& make) {
  const int64_t T = layout.total(), H = sizes.heads, P = sizes.head_dim, G = sizes.groups;
  const int64_t N = sizes.d_state;
  OpCase c = named("ssd", listed({{"heads", H}, {"head_dim", P}, {"groups", G}, {"d_state", N}}), T);
  c.inputs = {make.normal({T, H, P}), make.normal({T, H}, kStepBias), make.decay_rates({H}),
              make.normal({T, G, N}), make.normal({T, G, N}),         make.weights({H}),
              make.weights({H})};
  c.forward = [layout, chunk = sizes.chunk](const Tensors& in, ops::Path path) {
    return ops::ssd({in[0], in[1], in[2], in[3], in[4], in[5], in[6]}, layout, chunk, path);
  };
  c.upstream = make.normal({T, H, P});
  c.work = ssd_work({T, H, P, G, N}, make.element_bytes());
  return c;
}

OpCase conv_case(const ops::PackedLayout& layout, const OpSizes& sizes, Inputs& make) {
  const int64_t T = layout.total(), channels = sizes.channels, width = sizes.width;
  OpCase c = named("causal_conv1d", listed({{"channels", channels}, {"width", width}}), T);
  c.inputs = {make.normal({T, channels}), make.weights({channels, width}), make.weights({channels})};
  c.forward = [layout](const Tensors& in, ops::Path path) {
    return ops::causal_conv1d(in[0], in[1], in[2], layout, path);
  };
  c.upstream = make.normal({T, channels});
  c.work = conv_work({T, channels, width}, make.element_bytes());
  return c;
}

// Keys, queries and what chooses among them.
struct Chooser {
  at::Tensor K, Q, R;
  ops::ScoreMlp mlp;
  ops::PackedLayout layout;
  SparseConfig sparse;

  ops::LshMembership lsh(int64_t share, ops::Path path) const {
    ModelConfig model;
    model.sparse = sparse;
    return ops::lsh(K, Q, R, hash_function(model), share, layout, path).membership;
  }
  ops::TopkMembership topk(int64_t share, ops::Path path) const {
    const at::Tensor summary = ops::query_summary_causal(Q, layout, path);
    return ops::cumulative_topk(ops::key_scores(K, summary, mlp, layout, path), share, layout, path);
  }
  ops::Membership membership(size_t i) const {
    const int64_t share = sparse.share(i);
    switch (sparse.patterns[i]) {
      case PatternKind::full:
        return ops::FullMembership{};
      case PatternKind::sliding_window:
        return ops::WindowMembership{share};
      case PatternKind::sink:
        return ops::SinkMembership{share};
      case PatternKind::dilated:
        return ops::DilatedMembership{dilation_of(sparse, share)};
      case PatternKind::lsh:
        return lsh(share, ops::Path::automatic);
      case PatternKind::key_selection:
        return topk(share, ops::Path::automatic);
    }
    throw std::invalid_argument("unknown pattern");
  }
  int64_t pairs(size_t i, const std::vector<int64_t>& lengths) const {
    const int64_t share = sparse.share(i);
    if (sparse.patterns[i] == PatternKind::full) return pairs_of_all(lengths);
    if (sparse.patterns[i] == PatternKind::dilated)
      return pairs_of_dilation(lengths, dilation_of(sparse, share));
    return pairs_of_share(lengths, share);
  }
};

OpCase choosing_case(const std::shared_ptr<const Chooser>& chooser, size_t i, int64_t element_bytes) {
  const int64_t T = chooser->layout.total(), d = chooser->K.size(1), share = chooser->sparse.share(i);
  const bool lsh = chooser->sparse.patterns[i] == PatternKind::lsh;
  OpCase c = named(lsh ? "lsh" : "key_selection",
                   listed({{"d_qk", d}, {"k", share}}) +
                       (lsh ? ", hash_bits " + std::to_string(chooser->sparse.hash_bits) : std::string()),
                   T);
  c.forward = [chooser, share, lsh](const Tensors&, ops::Path path) {
    return lsh ? chooser->lsh(share, path).rank : chooser->topk(share, path).evicted;
  };
  c.work.forward =
      lsh ? lsh_work(T, d, chooser->R.size(1), element_bytes) : key_selection_work(T, d, element_bytes);
  return c;
}

std::vector<OpCase> attention_cases(const ops::PackedLayout& layout, const std::vector<int64_t>& lengths,
                                    const OpSizes& sizes, Inputs& make) {
  const int64_t T = layout.total(), d = sizes.d_qk;
  const auto chooser = std::make_shared<Chooser>();
  chooser->layout = layout;
  chooser->sparse = sizes.sparse;
  chooser->Q = make.normal({T, d});
  chooser->K = make.normal({T, d}, 0.0, 1.0 / std::sqrt(static_cast<double>(d)));
  chooser->R = make.weights({d, sizes.sparse.hash_bits});
  const auto linear = [&](int64_t out) {
    return make.weights({out, 2 * d}, 0.0, 1.0 / std::sqrt(2.0 * static_cast<double>(d)));
  };
  chooser->mlp = {linear(2 * d), make.weights({2 * d}), linear(2 * d), make.weights({2 * d}),
                  linear(1),     make.weights({1})};
  const at::Tensor V = make.normal({T, sizes.d_v});

  std::vector<OpCase> cases;
  ops::KeySet keys;
  std::string names;
  int64_t pairs = 0;
  for (size_t i = 0; i < sizes.sparse.patterns.size(); ++i) {
    const PatternKind kind = sizes.sparse.patterns[i];
    if (i > 0) names += '+';
    names += name_of(kind);
    if (kind == PatternKind::lsh || kind == PatternKind::key_selection)
      cases.push_back(choosing_case(chooser, i, make.element_bytes()));
    keys.memberships.push_back(chooser->membership(i));
    pairs += chooser->pairs(i, lengths);
  }
  OpCase c =
      named("attention", names + ", " + listed({{"k", sizes.sparse.k}, {"d_qk", d}, {"d_v", sizes.d_v}}), T);
  c.inputs = {chooser->Q, chooser->K, V};
  c.forward = [layout, keys](const Tensors& in, ops::Path path) {
    return ops::sparse_attention(in[0], in[1], in[2], keys, layout, path);
  };
  c.upstream = make.normal({T, sizes.d_v});
  c.work = attention_work({T, pairs, d, sizes.d_v}, make.element_bytes());
  cases.push_back(std::move(c));
  return cases;
}

}  // namespace

std::vector<int64_t> sequence_lengths(LengthKind kind, int64_t batch, int64_t length, uint64_t seed) {
  std::vector<int64_t> lengths(static_cast<size_t>(batch), length);
  if (kind == LengthKind::padded) return lengths;
  constexpr uint32_t kLeast = 5, kMost = 16;
  RandomStream random({.seed = seed});
  for (int64_t& each : lengths) {
    const int64_t contexts = kLeast + random.below(kMost - kLeast + 1);
    const int64_t keys = kLeast + random.below(kMost - kLeast + 1);
    each = std::max<int64_t>(1, length * contexts * (1 + 2 * keys) / (kMost * (1 + 2 * kMost)));
  }
  return lengths;
}

std::vector<OpCase> op_cases(BenchOp op, const SequenceShape& sequences, const OpSizes& sizes,
                             at::ScalarType dtype, at::Device device, uint64_t seed) {
  const at::NoGradGuard no_grad;
  const auto lengths = sequence_lengths(sequences.lengths, sequences.batch, sequences.length, seed);
  std::vector<int64_t> offsets{0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  const auto layout = ops::make_layout(offsets, sequences.length, device);
  Inputs make(dtype, device, seed);
  switch (op) {
    case BenchOp::scan:
      return {scan_case(layout, sizes, make)};
    case BenchOp::ssd:
      return {ssd_case(layout, sizes, make)};
    case BenchOp::conv:
      return {conv_case(layout, sizes, make)};
    case BenchOp::attention:
      return attention_cases(layout, lengths, sizes, make);
  }
  throw std::invalid_argument("unknown op");
}

}  // namespace hax
