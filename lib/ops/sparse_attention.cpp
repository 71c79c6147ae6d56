// Three ways to the same attention: the reference, batched tensor operations, and the CPU kernels. The last
// two are autograd functions of their own, so that no (query, key) matrix outlives the block it was made for.
#include "lib/ops/sparse_attention.h"

#include <limits>
#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"
#include "lib/ops/cpu/sparse_attention.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/for_sequences.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the backward pass needs beside tensors that autograd tracks.
struct Saved : torch::CustomClassHolder {
  Saved(KeySet keys, PackedLayout layout) : keys(std::move(keys)), layout(std::move(layout)) {}
  KeySet keys;
  PackedLayout layout;
};

void save(AutogradContext* ctx, const KeySet& keys, const PackedLayout& layout) {
  ctx->saved_data["keys"] = c10::IValue::make_capsule(c10::make_intrusive<Saved>(keys, layout));
}
c10::intrusive_ptr<Saved> load(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Saved>(ctx->saved_data["keys"].toCapsule());
}

at::Tensor attention_reference(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                               const KeySet& keys, const PackedLayout& layout) {
  const auto wide = compute_type(V);
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const int64_t begin = layout.offsets[b], end = layout.offsets[b + 1];
    const at::Tensor q = Q.slice(0, begin, end).to(wide), k = K.slice(0, begin, end).to(wide),
                     v = V.slice(0, begin, end).to(wide);
    for (int64_t i = 0; i < end - begin; ++i) {
      std::vector<int64_t> places;
      for (int64_t j = 0; j <= i; ++j) {
        if (allowed(keys, layout, b, i, j)) places.push_back(j);
      }
      if (!places.empty()) {
        const at::Tensor seen = at::tensor(places, at::kLong);
        rows.push_back(
            at::softmax(k.index_select(0, seen).mv(q[i]), 0).unsqueeze(0).mm(v.index_select(0, seen))[0]);
      } else if (keys.empty_row == EmptyRow::uniform) {
        // Scores of value zero with the gradient of real ones; padded positions add exp(0) each.
        const at::Tensor scores = k.mv(q[i]), weights = (scores - scores.detach()).exp();
        rows.push_back(weights.unsqueeze(0).mm(v)[0] / (weights.sum() + (layout.padded_length - v.size(0))));
      } else {
        rows.push_back(v.narrow(0, 0, 0).sum(0));  // zeros that autograd can trace
      }
    }
  }
  return at::stack(rows).to(V.scalar_type());
}

// One block of the composite: softmax weights P (b, i, j), zero where nothing is allowed, and which queries
// have no key at all.
struct Weights {
  at::Tensor P;      // (b, i, j)
  at::Tensor empty;  // (b, i, 1)
};

at::Tensor block_rows(const at::Tensor& padded, const MaskBlock& block, int64_t begin, int64_t end) {
  return padded.slice(0, block.first_sequence, block.end_sequence).slice(1, begin, end);
}
at::Tensor query_rows(const at::Tensor& padded, const MaskBlock& block) {
  return block_rows(padded, block, block.first_query, block.end_query);
}
at::Tensor key_rows(const at::Tensor& padded, const MaskBlock& block) {
  return block_rows(padded, block, 0, block.end_query);
}

Weights block_weights(const at::Tensor& Q, const at::Tensor& K, const KeySet& keys,
                      const PackedLayout& layout, const MaskBlock& block) {
  const at::Tensor mask = allowed_mask(keys, layout, block), hidden = mask.logical_not();
  at::Tensor S = at::bmm(query_rows(Q, block), key_rows(K, block).transpose(1, 2));
  S.masked_fill_(hidden, -std::numeric_limits<float>::infinity());
  // A row of -inf gives NaN, which the second fill removes.
  return {at::softmax(S, 2).masked_fill_(hidden, 0.0), mask.any(2, true).logical_not_()};
}

class CompositeAttention : public torch::autograd::Function<CompositeAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& Q_in, const at::Tensor& K_in,
                            const at::Tensor& V_in, const KeySet& keys, const PackedLayout& layout,
                            int64_t max_pairs) {
    save(ctx, keys, layout);
    ctx->saved_data["max_pairs"] = max_pairs;
    ctx->save_for_backward({Q_in, K_in, V_in});
    const auto wide = compute_type(V_in);
    const at::Tensor Q = to_padded(Q_in.to(wide), layout), K = to_padded(K_in.to(wide), layout),
                     V = to_padded(V_in.to(wide), layout);
    at::Tensor out = at::empty(V.sizes(), V.options());
    for (const MaskBlock& block : mask_blocks(layout, max_pairs)) {
      const Weights weights = block_weights(Q, K, keys, layout, block);
      at::Tensor rows = query_rows(out, block);
      rows.copy_(at::bmm(weights.P, key_rows(V, block)));
      if (keys.empty_row == EmptyRow::uniform) {
        const at::Tensor sum = V.slice(0, block.first_sequence, block.end_sequence).sum(1, true);
        rows.add_(weights.empty * (sum / layout.padded_length));
      }
    }
    return to_packed(out, layout).to(V_in.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved_keys = load(ctx);
    const KeySet& keys = saved_keys->keys;
    const PackedLayout& layout = saved_keys->layout;
    const variable_list saved = ctx->get_saved_variables();
    const int64_t max_pairs = ctx->saved_data["max_pairs"].toInt();
    const auto wide = compute_type(saved[2]);
    const at::Tensor Q = to_padded(saved[0].to(wide), layout), K = to_padded(saved[1].to(wide), layout),
                     V = to_padded(saved[2].to(wide), layout), G = to_padded(grads[0].to(wide), layout);
    at::Tensor dQ = at::zeros_like(Q), dK = at::zeros_like(K), dV = at::zeros_like(V);
    for (const MaskBlock& block : mask_blocks(layout, max_pairs)) {
      const Weights weights = block_weights(Q, K, keys, layout, block);
      const at::Tensor g = query_rows(G, block);
      at::Tensor dS = at::bmm(g, key_rows(V, block).transpose(1, 2));  // dP
      dS.sub_((dS * weights.P).sum(2, true)).mul_(weights.P);
      query_rows(dQ, block).copy_(at::bmm(dS, key_rows(K, block)));
      key_rows(dK, block).add_(at::bmm(dS.transpose(1, 2), query_rows(Q, block)));
      key_rows(dV, block).add_(at::bmm(weights.P.transpose(1, 2), g));
      if (keys.empty_row == EmptyRow::uniform) {
        const auto whole = [&](const at::Tensor& padded) {
          return padded.slice(0, block.first_sequence, block.end_sequence);
        };
        const at::Tensor g_empty = weights.empty * g, out = whole(V).sum(1, true) / layout.padded_length;
        const at::Tensor dS_empty =
            (at::bmm(g_empty, whole(V).transpose(1, 2)) - (g_empty * out).sum(2, true)) /
            layout.padded_length;
        query_rows(dQ, block).add_(at::bmm(dS_empty, whole(K)));
        whole(dK).add_(at::bmm(dS_empty.transpose(1, 2), query_rows(Q, block)));
        whole(dV).add_(g_empty.sum(1, true) / layout.padded_length);
      }
    }
    const auto packed = [&](const at::Tensor& gradient, const at::Tensor& input) {
      return to_packed(gradient, layout).to(input.scalar_type());
    };
    return {packed(dQ, saved[0]), packed(dK, saved[1]), packed(dV, saved[2]), {}, {}, {}};
  }
};

const int64_t* elements(at::Tensor& tensor) {
  tensor = tensor.contiguous();
  return tensor.const_data_ptr<int64_t>();
}

// The kernels' form of a key set, which has to stay alive; its tensors are made contiguous.
std::vector<cpu::KeyRule> kernel_rules(KeySet& keys) {
  using Kind = cpu::KeyRule::Kind;
  std::vector<cpu::KeyRule> rules;
  for (Membership& membership : keys.memberships) {
    cpu::KeyRule rule;
    if (std::holds_alternative<FullMembership>(membership)) {
      rule = {.kind = Kind::full};
    } else if (const auto* window = std::get_if<WindowMembership>(&membership)) {
      rule = {.kind = Kind::window, .width = window->width};
    } else if (const auto* sink = std::get_if<SinkMembership>(&membership)) {
      rule = {.kind = Kind::sink, .width = sink->width};
    } else if (const auto* dilated = std::get_if<DilatedMembership>(&membership)) {
      rule = {.kind = Kind::dilated, .width = dilated->dilation};
    } else if (auto* lsh = std::get_if<LshMembership>(&membership)) {
      rule = {.kind = Kind::lsh,
              .width = lsh->width,
              .query_bin = elements(lsh->query_bin),
              .key_bin = elements(lsh->key_bin),
              .rank = elements(lsh->rank),
              .count = elements(lsh->count)};
    } else {
      rule = {.kind = Kind::topk, .evicted = elements(std::get<TopkMembership>(membership).evicted)};
    }
    rules.push_back(rule);
  }
  return rules;
}

cpu::SparseAttentionShape kernel_shape(const at::Tensor& Q, const at::Tensor& V, const KeySet& keys,
                                       const PackedLayout& layout) {
  return {layout.offsets.data(), Q.size(1), V.size(1), layout.padded_length,
          keys.empty_row == EmptyRow::uniform};
}

class CpuAttention : public torch::autograd::Function<CpuAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& Q_in, const at::Tensor& K_in,
                            const at::Tensor& V_in, KeySet keys, const PackedLayout& layout) {
    const at::Tensor Q = as_rows(Q_in), K = as_rows(K_in), V = as_rows(V_in);
    const std::vector<cpu::KeyRule> rules = kernel_rules(keys);
    const cpu::SparseAttentionShape shape = kernel_shape(Q, V, keys, layout);
    at::Tensor out = at::empty(V.sizes(), V.options()), log_sum_exp = at::empty({V.size(0)}, V.options());
    for_sequences(layout, [&](int64_t begin, int64_t end) {
      cpu::sparse_attention_forward(shape, rules, const_rows(Q), const_rows(K), const_rows(V), begin, end,
                                    out.mutable_data_ptr<float>(), log_sum_exp.mutable_data_ptr<float>());
    });
    save(ctx, keys, layout);
    ctx->save_for_backward({Q, K, V, out, log_sum_exp});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved_keys = load(ctx);
    const PackedLayout& layout = saved_keys->layout;
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &Q = saved[0], &K = saved[1], &V = saved[2], &out = saved[3], &log_sum_exp = saved[4];
    const at::Tensor grad_out = as_rows(grads[0]);
    const std::vector<cpu::KeyRule> rules = kernel_rules(saved_keys->keys);
    const cpu::SparseAttentionShape shape = kernel_shape(Q, V, saved_keys->keys, layout);
    at::Tensor dQ = at::empty(Q.sizes(), Q.options()), dK = at::empty(K.sizes(), K.options()),
               dV = at::empty(V.sizes(), V.options());
    for_sequences(layout, [&](int64_t begin, int64_t end) {
      cpu::sparse_attention_backward(
          shape, rules, const_rows(Q), const_rows(K), const_rows(V), const_rows(out), const_rows(grad_out),
          log_sum_exp.const_data_ptr<float>(), begin, end, dQ.mutable_data_ptr<float>(),
          dK.mutable_data_ptr<float>(), dV.mutable_data_ptr<float>());
    });
    return {dQ, dK, dV, {}, {}};
  }
};

}  // namespace

at::Tensor sparse_attention(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V, const KeySet& keys,
                            const PackedLayout& layout, Path path, int64_t max_pairs) {
  if (Q.size(0) != layout.total() || K.sizes() != Q.sizes() || V.size(0) != layout.total()) {
    std::ostringstream message;
    message << "sparse_attention over " << layout.total() << " tokens got Q " << Q.sizes() << ", K "
            << K.sizes() << ", V " << V.sizes();
    throw std::invalid_argument(message.str());
  }
  if (path == Path::reference) return attention_reference(Q, K, V, keys, layout);
  const auto fp32 = [](const char* name, const at::Tensor& x) {
    return other_dtype(name, x.scalar_type(), {at::kFloat});
  };
  if (use_cpu_kernel("sparse_attention", path, Q, first_refusal({fp32("K", K), fp32("V", V)}))) {
    return CpuAttention::apply(Q, K, V, keys, layout);
  }
#ifdef HAX_CUDA
  const auto refusal = [&] { return sparse_attention_cuda_refusal(Q, K, V, keys, layout); };
  if (use_cuda_kernel("sparse_attention", path, Q, refusal))
    return sparse_attention_cuda(Q, K, V, keys, layout);
#endif
  return CompositeAttention::apply(Q, K, V, keys, layout, max_pairs);
}

}  // namespace hax::ops
