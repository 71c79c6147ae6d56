// What an op has to do at the least, whatever the implementation: bytes that must cross memory once and
// arithmetic of the plain recurrence.
//
// Bytes: every input read once and every output written once, in their own dtypes. Forward + backward adds:
// the inputs and the output's gradient read once more, every gradient written once. States kept or recomputed
// in between do not count, nor does anything that is read twice.
// FLOPs: additions, multiplications and exponentials count one each. Only what is done for every state,
// tap or pair counts; recomputation in the backward pass does not.
#pragma once

#include <cstdint>
#include <vector>

namespace hax {

struct Work {
  double bytes = 0.0;
  double flops = 0.0;
};
struct Passes {
  Work forward, both;  // both: forward + backward
};

struct ScanWorkShape {
  int64_t tokens, d_inner, d_state;
};
// Forward, a state and token: dt A, exp, times h; dt u B, plus; h C, plus (7). Backward: C dy, plus into dh;
// h dy, plus into dC over channels; dh h_before, times the decay, times A and plus into ddt, times dt and
// plus into dA; dh B, plus into d(dt u); dh dt u, plus into dB over channels; dh times the decay (15).
Passes selective_scan_work(const ScanWorkShape& shape, int64_t element_bytes);

struct SsdWorkShape {
  int64_t tokens, heads, head_dim, groups, d_state;
};
// Forward, an entry of the (head_dim, d_state) state and token: times the decay; x B, plus; S C, plus (5).
// Backward: dy C, plus into dS; dS times S_before, plus; S dy, plus into dC; dS x, plus into dB; dS B, plus
// into dx; dS times the decay (11).
Passes ssd_work(const SsdWorkShape& shape, int64_t element_bytes);

struct ConvWorkShape {
  int64_t tokens, channels, width;
};
// Forward, a channel and token: width times and plus (the bias is the first term), SiLU (4: negation aside,
// exp, plus 1, division, times). Backward: the derivative of SiLU (4) and its product with dy (1); width
// times and plus for dx, and for the taps; plus for the bias (1).
Passes conv_work(const ConvWorkShape& shape, int64_t element_bytes);

struct AttentionWorkShape {
  int64_t tokens, pairs, d_qk, d_v;  // pairs: (query, key) that attention is over
};
// Forward, a pair: Q K (2 d_qk), exp and its sum (2), P V (2 d_v). Backward: P from the kept log-sum-exp (1),
// dP = dO V (2 d_v), dS = P (dP - delta) (2), dV (2 d_v), dQ and dK (4 d_qk). Of key sets nothing counts.
Passes attention_work(const AttentionWorkShape& shape, int64_t element_bytes);

// Hashing K and Q by `projections` vectors and ranking them by bin: four int64 a token come out. Products
// with the hash matrix alone count as arithmetic.
Work lsh_work(int64_t tokens, int64_t d_qk, int64_t projections, int64_t element_bytes);
// Query summary, scores of K and running top-k: one int64 a token comes out. The score MLP's products (2 d_qk
// -> 2 d_qk -> 2 d_qk -> 1) alone count as arithmetic.
Work key_selection_work(int64_t tokens, int64_t d_qk, int64_t element_bytes);

// Queries of sequences of these lengths times the keys that a pattern gives each: min(i + 1, share) at
// position i (a window, sink, LSH or top-k), (i + 1) / dilation, or all i + 1. A key that two patterns give
// counts for both; LSH may find fewer.
int64_t pairs_of_share(const std::vector<int64_t>& lengths, int64_t share);
int64_t pairs_of_dilation(const std::vector<int64_t>& lengths, int64_t dilation);
int64_t pairs_of_all(const std::vector<int64_t>& lengths);

}  // namespace hax
