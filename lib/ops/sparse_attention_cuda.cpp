#include "lib/ops/cuda/sparse_attention.h"

#include <optional>

#include "lib/ops/cuda_tensors.h"
#include "lib/ops/sparse_attention.h"

namespace hax::ops {
namespace {

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

// Rows that 16-byte loads can read.
at::Tensor aligned_rows(const at::Tensor& x) {
  const at::Tensor rows = as_rows(x);
  const bool aligned =
      reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 16 == 0 && rows.stride(0) % 8 == 0;
  return aligned ? rows : rows.clone(at::MemoryFormat::Contiguous);
}

class CudaSparseAttention : public torch::autograd::Function<CudaSparseAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& Q_in, const at::Tensor& K_in,
                            const at::Tensor& V_in, const KeySet& keys, const PackedLayout& layout) {
    const at::Tensor Q = aligned_rows(Q_in), K = aligned_rows(K_in), V = aligned_rows(V_in);
    const auto memberships = *kernel_memberships(keys);
    const auto words = [&](bool wanted) {
      return at::empty({wanted ? layout.total() : 0}, Q.options().dtype(at::kInt));
    };
    const bool lsh = memberships.query_bin != nullptr;
    const at::Tensor life = words(true), key_code = words(lsh), query_code = words(lsh);
    const at::Tensor empty = at::empty({layout.total()}, Q.options().dtype(at::kByte));
    cuda::tile_keys(cuda_layout(layout), memberships, data<uint32_t>(life), data<uint32_t>(key_code),
                    data<uint32_t>(query_code), data<uint8_t>(empty), cuda_stream());
    const int64_t width = memberships.lsh_width, uniform = keys.empty_row == EmptyRow::uniform;
    const at::Tensor O = at::empty({V.size(0), V.size(1)}, V.options());
    const at::Tensor lse = at::empty({V.size(0)}, V.options().dtype(at::kFloat));
    cuda::attention_forward(cuda_layout(layout), {Q.size(1), V.size(1)},
                            tile_keys(life, key_code, query_code, empty, width, uniform, layout),
                            device_rows<Bf16>(Q), device_rows<Bf16>(K), device_rows<Bf16>(V), data<Bf16>(O),
                            data<float>(lse), cuda_stream());
    ctx->save_for_backward({Q, K, V, O, lse, life, key_code, query_code, empty});
    ctx->saved_data["width"] = width;
    ctx->saved_data["uniform"] = uniform;
    save_layout(ctx, layout);
    return O;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &Q = saved[0], &K = saved[1], &V = saved[2], &O = saved[3], &lse = saved[4];
    const auto layout = saved_layout(ctx);
    const at::Tensor dO = aligned_rows(gradients[0]);
    const at::Tensor dQ = at::empty({Q.size(0), Q.size(1)}, Q.options());
    const at::Tensor dK = at::empty({K.size(0), K.size(1)}, K.options());
    const at::Tensor dV = at::empty({V.size(0), V.size(1)}, V.options());
    const at::Tensor delta = at::empty_like(lse);
    cuda::attention_backward(
        cuda_layout(layout), {Q.size(1), V.size(1)},
        tile_keys(saved[5], saved[6], saved[7], saved[8], ctx->saved_data["width"].toInt(),
                  ctx->saved_data["uniform"].toInt(), layout),
        device_rows<Bf16>(Q), device_rows<Bf16>(K), device_rows<Bf16>(V), device_data<Bf16>(O),
        device_data<float>(lse), device_rows<Bf16>(dO), data<Bf16>(dQ), data<Bf16>(dK), data<Bf16>(dV),
        data<float>(delta), cuda_stream());
    return {dQ, dK, dV, at::Tensor(), at::Tensor()};
  }

 private:
  using Bf16 = __nv_bfloat16;
  template <class T>
  static T* data(const at::Tensor& x) {
    return mutable_device_data<T>(x);
  }
  static cuda::TileKeys tile_keys(const at::Tensor& life, const at::Tensor& key_code,
                                  const at::Tensor& query_code, const at::Tensor& empty, int64_t width,
                                  bool uniform, const PackedLayout& layout) {
    const bool lsh = key_code.numel() > 0;
    return {data<uint32_t>(life),
            lsh ? data<uint32_t>(key_code) : nullptr,
            lsh ? data<uint32_t>(query_code) : nullptr,
            data<uint8_t>(empty),
            static_cast<uint32_t>(width),
            uniform,
            layout.padded_length};
  }
};

}  // namespace

bool has_sparse_attention_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                               const KeySet& keys, const PackedLayout& layout) {
  for (const auto* x : {&Q, &K, &V}) {
    if (x->scalar_type() != at::kBFloat16 || x->size(1) % 8 != 0) return false;
  }
  if (Q.size(1) > 64 || V.size(1) > cuda::kAttentionWidest || layout.max_seqlen >= int64_t{1} << 30)
    return false;
  const auto m = kernel_memberships(keys);
  return m && (!m->query_bin || cuda::lsh_code_shift(m->lsh_bins, m->lsh_width, layout.max_seqlen) > 0);
}

at::Tensor sparse_attention_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                                 const KeySet& keys, const PackedLayout& layout) {
  return CudaSparseAttention::apply(Q, K, V, keys, layout);
}

}  // namespace hax::ops
