// The best k of a growing sequence: by score for key selection, by noise for the ranking sample. Short
// sequences compare all pairs; of long ones a warp each keeps the best so far.
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/order_by_pairs.cuh"
#include "lib/ops/cuda/philox.cuh"

namespace hax::ops::cuda {
namespace {

// Larger is better: the value on top, then the earlier position.
__device__ __forceinline__ uint64_t ordered(uint32_t value, uint32_t position) {
  return static_cast<uint64_t>(value) << 32 | (0xffffffffu - position);
}
__device__ __forceinline__ uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x == 0.0f ? 0.0f : x);  // -0 and 0 are equal
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint32_t position_of(uint64_t entry) {
  return 0xffffffffu - static_cast<uint32_t>(entry);
}

// ---- by pairs

template <class T>
__global__ void __launch_bounds__(kPairThreads)
    topk_by_pairs_kernel(Layout layout, int k, const T* __restrict__ scores, int64_t* __restrict__ evicted) {
  extern __shared__ __align__(16) uint32_t numbers[];
  const int64_t begin = layout.cu_seqlens[blockIdx.y];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - begin);
  const int p = static_cast<int>(blockIdx.x) * kPairThreads + static_cast<int>(threadIdx.x);
  if (static_cast<int>(blockIdx.x) * kPairThreads >= n) return;
  stage_numbers(numbers, n, (n + kPairThreads - 1) / kPairThreads * kPairThreads, 0u,
                [&](int i) { return ordered_bits(to_float(scores[begin + i])); });
  __syncthreads();
  const uint32_t own = numbers[p];
  const int p0 = p - static_cast<int>(threadIdx.x) % 32;
  int left = k;  // keys that have yet to beat this one
  for (int i = 0; i < p0 && __any_sync(0xffffffffu, left > 0); i += 32)
    left -= count_32(numbers + i, [&](uint32_t v) { return v >= own; });
  const uint32_t earlier = (1u << (p - p0)) - 1;
  left -= __popc(mask_32(numbers + p0, [&](uint32_t v) { return v >= own; }) & earlier);
  int by = left > 0 ? n : p;
  for (int i = p0; i < n && __any_sync(0xffffffffu, left > 0); i += 32) {
    uint32_t beat = mask_32(numbers + i, [&](uint32_t v) { return v > own; });
    if (i == p0) beat &= ~earlier;
    const int count = __popc(beat);
    if (left > 0 && count >= left) by = i + nth_bit(beat, left);
    left -= count;
  }
  if (p < n) evicted[begin + p] = by;
}

__global__ void __launch_bounds__(kPairThreads)
    sample_by_pairs_kernel(Layout layout, int k, SampleKey key, bool fill_with_pad, int64_t padded_length,
                           int64_t* __restrict__ sampled) {
  extern __shared__ __align__(16) uint32_t numbers[];
  const int64_t begin = layout.cu_seqlens[blockIdx.y];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - begin);
  const int p = static_cast<int>(blockIdx.x) * kPairThreads + static_cast<int>(threadIdx.x);
  if (static_cast<int>(blockIdx.x) * kPairThreads >= n) return;
  int64_t* out = sampled + static_cast<int64_t>(blockIdx.y) * k;
  const uint2 seed = make_uint2(static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
  const auto step = static_cast<uint32_t>(*key.step);
  const int room = (n + kPairThreads - 1) / kPairThreads * kPairThreads, shift = 32 - key.noise_bits;
  for (int i = threadIdx.x; i < room / 4; i += kPairThreads) {
    const uint4 w = philox(make_uint4(i, blockIdx.y, step, key.purpose_and_layer), seed);
    const uint32_t each[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) numbers[4 * i + e] = 4 * i + e < n ? each[e] >> shift : 0u;
  }
  __syncthreads();
  const int place = place_in_order(numbers, n, p, numbers[p], k);
  if (p < n && place < k) out[place] = p;
  for (int slot = n + p; slot < k; slot += n)  // short of positions: the padded ones from n on
    if (p < n) out[slot] = fill_with_pad && slot < padded_length ? slot : -1;
}

// ---- by a warp

// The k largest so far, in descending order: slot s is entry s / 32 of lane s % 32; 0 where nothing came yet.
template <int E>
struct Best {
  uint64_t entry[E] = {};
  uint64_t least = 0;  // in slot k - 1

  // Offers each lane's candidate (0: none) in the order of lanes. chosen() runs in the lane of one that is
  // taken, evicted(position, by) in one lane for each that has to go.
  template <class Chosen, class Evicted>
  __device__ void offer(uint64_t candidate, int k, int lane, const Chosen& chosen, const Evicted& evicted) {
    uint32_t left = 0xffffffffu;
    while (true) {
      const uint32_t takers = __ballot_sync(0xffffffffu, candidate > least) & left;
      if (takers == 0) return;
      const int source = __ffs(static_cast<int>(takers)) - 1;
      left = source == 31 ? 0 : 0xffffffffu << (source + 1);
      const uint64_t fresh = __shfl_sync(0xffffffffu, candidate, source);
      if (lane == source) {
        chosen();
        if (least != 0) evicted(position_of(least), position_of(fresh));
      }
      int place = 0;
#pragma unroll
      for (int e = 0; e < E; ++e) place += __popc(__ballot_sync(0xffffffffu, entry[e] > fresh));
#pragma unroll
      for (int e = E - 1; e >= 0; --e) {
        const uint64_t before = __shfl_up_sync(0xffffffffu, entry[e], 1);
        const uint64_t carry = e > 0 ? __shfl_sync(0xffffffffu, entry[e > 0 ? e - 1 : 0], 31) : 0;
        const int slot = e * 32 + lane;
        if (slot == place)
          entry[e] = fresh;
        else if (slot > place)
          entry[e] = lane == 0 ? carry : before;
        if (slot >= k) entry[e] = 0;
      }
#pragma unroll
      for (int e = 0; e < E; ++e) {
        if (e == (k - 1) / 32) least = __shfl_sync(0xffffffffu, entry[e], (k - 1) % 32);
      }
      if (left == 0) return;
    }
  }
};

constexpr int kTopkWarps = 1;  // a warp a block: sequences spread over the multiprocessors

template <int E, class T>
__global__ void __launch_bounds__(kTopkWarps * 32)
    topk_kernel(Layout layout, int k, const T* __restrict__ scores, int64_t* evicted) {
  const int lane = threadIdx.x;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  Best<E> best;
  int64_t* out = evicted + begin;
  for (int p0 = 0; p0 < n; p0 += 32) {
    const int p = p0 + lane;
    uint64_t candidate = 0;
    if (p < n) {
      candidate = ordered(ordered_bits(to_float(scores[begin + p])), p);
      out[p] = p;
    }
    best.offer(
        candidate, k, lane, [&] { out[p] = n; }, [&](uint32_t position, uint32_t by) { out[position] = by; });
    __syncwarp();
  }
}

template <int E>
__global__ void __launch_bounds__(kTopkWarps * 32)
    sample_kernel(Layout layout, int k, SampleKey key, bool fill_with_pad, int64_t padded_length,
                  int64_t* __restrict__ sampled) {
  const int lane = threadIdx.x;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  const uint2 seed = make_uint2(static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
  const auto step = static_cast<uint32_t>(*key.step);
  Best<E> best;
  for (int p0 = 0; p0 < n; p0 += 32) {
    const int p = p0 + lane;
    const uint4 words = philox(make_uint4(p / 4, blockIdx.x, step, key.purpose_and_layer), seed);
    const uint32_t noise = p % 4 == 0 ? words.x : p % 4 == 1 ? words.y : p % 4 == 2 ? words.z : words.w;
    best.offer(
        p < n ? ordered(noise >> (32 - key.noise_bits), p) : 0, k, lane, [] {}, [](uint32_t, uint32_t) {});
  }
  int64_t* out = sampled + static_cast<int64_t>(blockIdx.x) * k;
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int slot = e * 32 + lane;
    if (slot >= k) continue;
    const int64_t pad = slot;  // sequences shorter than k: their n positions, then the padded ones from n on
    out[slot] = slot < n ? position_of(best.entry[e]) : fill_with_pad && pad < padded_length ? pad : -1;
  }
}

// f(E): entries a lane.
template <class F>
void with_entries(int64_t k, const F& f) {
  if (k <= 32) return f(std::integral_constant<int, 1>());
  if (k <= 64) return f(std::integral_constant<int, 2>());
  if (k <= 128) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 8>());
}

std::string sequences_text(const Layout& layout, int64_t k) {
  return "sequences " + std::to_string(layout.batch) + ", k " + std::to_string(k);
}

}  // namespace

template <class T>
void cumulative_topk(const Layout& layout, int64_t k, const T* scores, int64_t* evicted,
                     cudaStream_t stream) {
  if (layout.max_seqlen <= kPairsLongest) {
    topk_by_pairs_kernel<T><<<pairs_grid(layout), kPairThreads, pairs_bytes(layout), stream>>>(
        layout, static_cast<int>(k), scores, evicted);
    check_launch("cumulative_topk", sequences_text(layout, k));
    return;
  }
  with_entries(k, [&](auto e) {
    topk_kernel<decltype(e)::value, T><<<static_cast<unsigned>(layout.batch), kTopkWarps * 32, 0, stream>>>(
        layout, static_cast<int>(k), scores, evicted);
  });
  check_launch("cumulative_topk", sequences_text(layout, k));
}

void sample_positions(const Layout& layout, int64_t k, const SampleKey& key, bool fill_with_pad,
                      int64_t padded_length, int64_t* sampled, cudaStream_t stream) {
  if (layout.max_seqlen <= kPairsLongest) {
    sample_by_pairs_kernel<<<pairs_grid(layout), kPairThreads, pairs_bytes(layout), stream>>>(
        layout, static_cast<int>(k), key, fill_with_pad, padded_length, sampled);
    check_launch("sample_positions", sequences_text(layout, k));
    return;
  }
  with_entries(k, [&](auto e) {
    sample_kernel<decltype(e)::value><<<static_cast<unsigned>(layout.batch), kTopkWarps * 32, 0, stream>>>(
        layout, static_cast<int>(k), key, fill_with_pad, padded_length, sampled);
  });
  check_launch("sample_positions", sequences_text(layout, k));
}

template void cumulative_topk<float>(const Layout&, int64_t, const float*, int64_t*, cudaStream_t);
template void cumulative_topk<__nv_bfloat16>(const Layout&, int64_t, const __nv_bfloat16*, int64_t*,
                                             cudaStream_t);

}  // namespace hax::ops::cuda
