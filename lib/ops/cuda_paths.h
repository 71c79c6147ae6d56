// The CUDA paths of the ops: fused kernels behind autograd functions, one file NAME_cuda.cpp each, built when
// HAX_CUDA is on. Same contracts as the ops themselves. Only their dispatch points call these.
#pragma once

#include "lib/ops/columns.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/fallback.h"
#include "lib/ops/gate.h"
#include "lib/ops/key_scores.h"
#include "lib/ops/key_set.h"
#include "lib/ops/keys_queries.h"
#include "lib/ops/layout.h"
#include "lib/ops/lsh.h"
#include "lib/ops/pieces.h"
#include "lib/ops/rms_norm.h"
#include "lib/ops/selective_scan.h"
#include "lib/ops/ssd.h"

namespace hax::ops {

// What refuses an input says why (lib/ops/fallback.h); the rest take every fp32 and bf16 one.

Refusal causal_conv1d_cuda_refusal(const at::Tensor& weight);
std::vector<at::Tensor> causal_conv1d_cuda(const at::Tensor& rows, int64_t first, const at::Tensor& weight,
                                           const at::Tensor& bias, const PackedLayout& layout,
                                           const std::vector<Columns>& pieces);

// `out`: dtype of the result.
Refusal rms_norm_cuda_refusal(const at::Tensor& x, at::ScalarType out);
ResidualNorm rms_norm_cuda(const at::Tensor& x, const at::Tensor& h, const at::Tensor& weight, double eps,
                           at::ScalarType out);

at::Tensor rms_norm_of_rows_cuda(const at::Tensor& x, const at::Tensor& h, const at::Tensor& rows,
                                 const at::Tensor& weight, double eps);

// weight undefined: no norm.
Refusal gate_cuda_refusal(const GateInputs& in);
at::Tensor gate_cuda(const GateInputs& in, const at::Tensor& weight, double eps);

Refusal key_scores_cuda_refusal(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp);
at::Tensor key_scores_cuda(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp,
                           const PackedLayout& layout);

Refusal lsh_cuda_refusal(const at::Tensor& K, int64_t h, int64_t n_bins);
LshMembership lsh_cuda(const at::Tensor& K, const at::Tensor& Q, const at::Tensor& R,
                       const HashFunction& hash, int64_t width, const PackedLayout& layout);

Refusal query_summary_cuda_refusal(const at::Tensor& Q);
at::Tensor query_summary_causal_cuda(const at::Tensor& Q, const PackedLayout& layout);
at::Tensor query_summary_paper_cuda(const at::Tensor& Q, const PackedLayout& layout);
Refusal topk_cuda_refusal(int64_t k);
TopkMembership cumulative_topk_cuda(const at::Tensor& scores, int64_t k, const PackedLayout& layout);
at::Tensor ranking_targets_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& sampled,
                                const at::Tensor& pad_queries, const PackedLayout& layout,
                                at::ScalarType type);

Refusal sampled_ranking_cuda_refusal(const at::Tensor& K, const at::Tensor& summary,
                                     const at::Tensor& sampled, const at::Tensor& targets,
                                     const ScoreMlp& mlp, at::ScalarType pairs);
at::Tensor sampled_ranking_cuda(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                                const at::Tensor& targets, const ScoreMlp& mlp, const PackedLayout& layout,
                                at::ScalarType pairs);

at::Tensor embedding_cuda(const at::Tensor& weight, const at::Tensor& tokens, const PackedLayout& layout);

// Rows whose target is below 0 do not count. `rounds`: as rounded_cross_entropy.
CrossEntropy cross_entropy_cuda(const at::Tensor& logits, const at::Tensor& target, bool rounds);

bool has_keys_queries_cuda(const at::Tensor& rows);
KeysQueries keys_queries_cuda(const at::Tensor& rows, double scale);

// Of fp32 and bf16, one cast to the other.
bool has_pieces_cuda(const at::Tensor& x);
void cast_pieces_cuda(const std::vector<at::Tensor>& values, const CastPieces& to);
void sum_pieces_cuda(const std::vector<Piece>& pieces, const at::Tensor& flat);

Refusal sparse_attention_cuda_refusal(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                                      const KeySet& keys, const PackedLayout& layout);
at::Tensor sparse_attention_cuda(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V,
                                 const KeySet& keys, const PackedLayout& layout);

Refusal ssd_cuda_refusal(const at::Tensor& x, const at::Tensor& B);
at::Tensor ssd_cuda(const SsdInputs& in, const PackedLayout& layout);

Refusal selective_scan_cuda_refusal(const at::Tensor& B);
at::Tensor selective_scan_cuda(const SelectiveScanInputs& in, const PackedLayout& layout);

}  // namespace hax::ops
