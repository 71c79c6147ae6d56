#include "lib/ops/cuda/sparse_attention.h"

#include <optional>

#include "lib/ops/autograd.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/lanes.h"
#include "lib/ops/saved_layout.h"
#include "lib/ops/sparse_attention.h"

namespace hax::ops {
namespace {

constexpr int64_t kWidestKeys = 64;          // d_qk
constexpr int kSideLane = kUrgentLanes - 1;  // where dQ is made beside dK and dV

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The memberships of a key set as the kernels take them; nothing where there are two of one kind that the
// kernels know one of.
std::optional<cuda::Memberships> kernel_memberships(const KeySet& keys) {
  cuda::Memberships m;
  bool fits = true;
  const auto data = [](const at::Tensor& x) { return x.const_data_ptr<int64_t>(); };
  for (const Membership& membership : keys.memberships) {
    if (std::holds_alternative<FullMembership>(membership)) {
      m.full = true;
    } else if (const auto* window = std::get_if<WindowMembership>(&membership)) {
      m.window = std::max(m.window, window->width);
    } else if (const auto* sink = std::get_if<SinkMembership>(&membership)) {
      m.sink = std::max(m.sink, sink->width);
    } else if (const auto* dilated = std::get_if<DilatedMembership>(&membership)) {
      fits = fits && m.dilation < 0;
      m.dilation = dilated->dilation;
    } else if (const auto* topk = std::get_if<TopkMembership>(&membership)) {
      fits = fits && m.evicted == nullptr;
      m.evicted = data(topk->evicted);
    } else {
      const auto& lsh = std::get<LshMembership>(membership);
      fits = fits && m.query_bin == nullptr;
      m.query_bin = data(lsh.query_bin);
      m.key_bin = data(lsh.key_bin);
      m.rank = data(lsh.rank);
      m.count = data(lsh.count);
      m.lsh_width = lsh.width;
      m.lsh_bins = lsh.bins;
    }
  }
  return fits ? std::optional(m) : std::nullopt;
}

// The key set as the kernels read it, for the backward pass.
struct SavedKeys : torch::CustomClassHolder {
  SavedKeys(const KeySet& keys, const PackedLayout& layout)
      : words(at::empty({cuda::tile_key_words(layout.total())}, layout.position.options().dtype(at::kInt))),
        tile_keys(cuda::tile_keys(cuda_layout(layout), *kernel_memberships(keys),
                                  keys.empty_row == EmptyRow::uniform, layout.padded_length,
                                  mutable_device_data<uint32_t>(words), cuda_stream())) {}
  at::Tensor words;
  cuda::TileKeys tile_keys;  // of `words`
};

class CudaSparseAttention : public torch::autograd::Function<CudaSparseAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& Q_in, const at::Tensor& K_in,
                            const at::Tensor& V_in, const KeySet& keys, const PackedLayout& layout) {
    const at::Tensor Q = aligned_rows(Q_in), K = aligned_rows(K_in), V = aligned_rows(V_in);
    const auto saved_keys = c10::make_intrusive<SavedKeys>(keys, layout);
    const at::Tensor O = at::empty({V.size(0), V.size(1)}, V.options());
    const at::Tensor lse = at::empty({V.size(0)}, V.options().dtype(at::kFloat));
    with_element_type(Q, [&](auto element) {
      using T = decltype(element);
      cuda::attention_forward<T>(cuda_layout(layout), {Q.size(1), V.size(1)}, saved_keys->tile_keys,
                                 device_rows<T>(Q), device_rows<T>(K), device_rows<T>(V),
                                 mutable_device_data<T>(O), mutable_device_data<float>(lse), cuda_stream());
    });
    ctx->save_for_backward({Q, K, V, O, lse});
    ctx->saved_data["keys"] = c10::IValue::make_capsule(saved_keys);
    save_layout(ctx, layout);
    return O;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &Q = saved[0], &K = saved[1], &V = saved[2], &O = saved[3], &lse = saved[4];
    const auto saved_keys =
        c10::static_intrusive_pointer_cast<SavedKeys>(ctx->saved_data["keys"].toCapsule());
    const auto layout = saved_layout(ctx);
    const at::Tensor dO = aligned_rows(gradients[0]);
    const at::Tensor dQ = at::empty({Q.size(0), Q.size(1)}, Q.options());
    const at::Tensor dK = at::empty({K.size(0), K.size(1)}, K.options());
    const at::Tensor dV = at::empty({V.size(0), V.size(1)}, V.options());
    const at::Tensor delta = at::empty_like(lse);
    const auto device = cuda_layout(layout);
    const cuda::AttentionShape shape{Q.size(1), V.size(1)};
    const cuda::TileKeys& keys = saved_keys->tile_keys;
    with_element_type(Q, [&](auto element) {
      using T = decltype(element);
      const auto q = device_rows<T>(Q), k = device_rows<T>(K), v = device_rows<T>(V), up = device_rows<T>(dO);
      const float *sums = device_data<float>(lse), *deltas = device_data<float>(delta);
      cuda::attention_delta<T>(device, shape, device_data<T>(O), up, mutable_device_data<float>(delta),
                               cuda_stream());
      Lane lane(kSideLane, {Q, K, V, lse, dO, delta, dQ, saved_keys->words});
      cuda::attention_dq<T>(device, shape, keys, q, k, v, sums, up, deltas, mutable_device_data<T>(dQ),
                            cuda_stream());
      lane.leave();
      cuda::attention_dkv<T>(device, shape, keys, q, k, v, sums, up, deltas, mutable_device_data<T>(dK),
                             mutable_device_data<T>(dV), cuda_stream());
      lane.join({dQ});
    });
    return {dQ, dK, dV, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Refusal sparse_attention_cuda_refusal(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                                      const KeySet& keys, const PackedLayout& layout) {
  const auto as_queries = [&](const char* name, const at::Tensor& x) {
    return other_dtype(name, x.scalar_type(), {Q.scalar_type()});
  };
  const auto multiple_of_8 = [](const char* name, const at::Tensor& x) -> Refusal {
    if (x.size(1) % 8 == 0) return {};
    return std::string(name) + " " + std::to_string(x.size(1)) + " is not a multiple of 8";
  };
  const int64_t widest =
      Q.scalar_type() == at::kFloat ? cuda::kAttentionWidest<float> : cuda::kAttentionWidest<__nv_bfloat16>;
  const Refusal refusal = first_refusal({as_queries("K", K), as_queries("V", V), multiple_of_8("d_qk", Q),
                                         multiple_of_8("d_v", V), above("d_qk", Q.size(1), kWidestKeys),
                                         above("d_v", V.size(1), widest)});
  if (!refusal.empty()) return refusal;
  if (layout.max_seqlen >= int64_t{1} << 30) return "sequences of 2^30 tokens and more have no kernel";
  const auto m = kernel_memberships(keys);
  if (!m) return "two patterns of one kind have no kernel";
  if (!m->query_bin || cuda::lsh_code_shift(m->lsh_bins, m->lsh_width, layout.max_seqlen) > 0) return {};
  return std::to_string(m->lsh_bins) + " bins over sequences this long have no kernel";
}

at::Tensor sparse_attention_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                                 const KeySet& keys, const PackedLayout& layout) {
  return CudaSparseAttention::apply(Q, K, V, keys, layout);
}

}  // namespace hax::ops
