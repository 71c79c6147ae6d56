// Locality-sensitive hashing of packed keys and queries (lib/ops/lsh.h): centring, projection, bins, ranks
// and counts.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// whole_sequence normalises as well; of bf16 keys its mean, differences, norm, quotients, matrix and
// projections are rounded to bf16. The others compute in fp32.
enum class HashCentring { none, running_mean, whole_sequence };

struct LshShape {
  int64_t d;              // features of K and Q, at most kLshWidest
  int64_t h;              // projections, at most kLshMostBits
  bool sign;              // 2^h bins, else argmax: h bins
  int64_t bins;           // at most kLshMostBins
  int64_t padded_length;  // of whole_sequence
};
constexpr int64_t kLshWidest = 128, kLshMostBits = 32, kLshMostBins = 8192;

// R (d, h) fp32. query_bin, key_bin, rank, count (rows). scratch: lsh_scratch_floats(...) floats.
int64_t lsh_scratch_floats(const Layout& layout, const LshShape& shape);
template <class T>
void lsh(const Layout& layout, const LshShape& shape, HashCentring centring, Rows<const T> K, Rows<const T> Q,
         const float* R, int64_t* query_bin, int64_t* key_bin, int64_t* rank, int64_t* count, float* scratch,
         cudaStream_t stream);

}  // namespace hax::ops::cuda
