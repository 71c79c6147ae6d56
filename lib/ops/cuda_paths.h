// The CUDA paths of the ops: fused kernels behind autograd functions, one file NAME_cuda.cpp each, built when
// HAX_CUDA is on. Same contracts as the ops themselves. Only their dispatch points call these.
#pragma once

#include "lib/ops/columns.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/gate.h"
#include "lib/ops/key_scores.h"
#include "lib/ops/key_set.h"
#include "lib/ops/layout.h"
#include "lib/ops/lsh.h"
#include "lib/ops/pieces.h"
#include "lib/ops/rms_norm.h"
#include "lib/ops/selective_scan.h"
#include "lib/ops/ssd.h"

namespace hax::ops {

// Does `path` mean a fused CUDA kernel for this input? fp32 and bf16 have them.
inline bool use_cuda_kernel(Path path, const at::Tensor& x) {
  return path == Path::automatic && x.is_cuda() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

bool has_causal_conv1d_cuda(const at::Tensor& weight);
std::vector<at::Tensor> causal_conv1d_cuda(const at::Tensor& rows, int64_t first, const at::Tensor& weight,
                                           const at::Tensor& bias, const PackedLayout& layout,
                                           const std::vector<Columns>& pieces);

// `out`: dtype of the result.
bool has_rms_norm_cuda(const at::Tensor& x, at::ScalarType out);
ResidualNorm rms_norm_cuda(const at::Tensor& x, const at::Tensor& h, const at::Tensor& weight, double eps,
                           at::ScalarType out);

// weight undefined: no norm.
bool has_gate_cuda(const GateInputs& in);
at::Tensor gate_cuda(const GateInputs& in, const at::Tensor& weight, double eps);

bool has_key_scores_cuda(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp);
at::Tensor key_scores_cuda(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp,
                           const PackedLayout& layout);

bool has_lsh_cuda(const at::Tensor& K, int64_t h, int64_t n_bins);
LshMembership lsh_cuda(const at::Tensor& K, const at::Tensor& Q, const at::Tensor& R,
                       const HashFunction& hash, int64_t width, const PackedLayout& layout);

bool has_query_summary_cuda(const at::Tensor& Q);
at::Tensor query_summary_causal_cuda(const at::Tensor& Q, const PackedLayout& layout);
at::Tensor query_summary_paper_cuda(const at::Tensor& Q, const PackedLayout& layout);
bool has_topk_cuda(int64_t k);
TopkMembership cumulative_topk_cuda(const at::Tensor& scores, int64_t k, const PackedLayout& layout);
at::Tensor sampled_features_cuda(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                                 const PackedLayout& layout, at::ScalarType type);
at::Tensor ranking_targets_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& sampled,
                                const at::Tensor& pad_queries, const PackedLayout& layout,
                                at::ScalarType type);
at::Tensor ranking_loss_cuda(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid);

at::Tensor embedding_cuda(const at::Tensor& weight, const at::Tensor& tokens, const PackedLayout& layout);

// Rows whose target is below 0 do not count. `rounds`: as rounded_cross_entropy.
CrossEntropy cross_entropy_cuda(const at::Tensor& logits, const at::Tensor& target, bool rounds);

bool has_pieces_cuda(const at::Tensor& x, at::ScalarType other);
void cast_pieces_cuda(const std::vector<at::Tensor>& values, const std::vector<at::Tensor>& casts);
void sum_pieces_cuda(const std::vector<Piece>& pieces, const at::Tensor& flat);

bool has_sparse_attention_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                               const KeySet& keys, const PackedLayout& layout);
at::Tensor sparse_attention_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                                 const KeySet& keys, const PackedLayout& layout);

bool has_ssd_cuda(const at::Tensor& x, const at::Tensor& B);
at::Tensor ssd_cuda(const SsdInputs& in, const PackedLayout& layout);

bool has_selective_scan_cuda(const at::Tensor& B);
at::Tensor selective_scan_cuda(const SelectiveScanInputs& in, const PackedLayout& layout);

}  // namespace hax::ops
