// The best k of a growing sequence: by score for key selection, by noise for the ranking sample. Short
// sequences compare all pairs of scores, and look for the noise by its digits; of long ones a warp each keeps
// the best so far.
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

constexpr int kPairThreads = 256;
constexpr int kSplit = 4;  // warps that share the comparisons of 32 positions
constexpr int kPairGroups = kPairThreads / 32 / kSplit, kPairPositions = kPairGroups * 32;  // of a block

// The k-th key that beats a key has it evicted, or keeps it from ever being chosen where it comes before.
template <class T>
__global__ void __launch_bounds__(kPairThreads)
    topk_by_pairs_kernel(Layout layout, int k, const T* __restrict__ scores, int64_t* __restrict__ evicted) {
  extern __shared__ __align__(16) uint32_t numbers[];  // of the sequence; then which of them beat: masks
  __shared__ int counts[kSplit][kPairPositions];
  const int64_t begin = layout.cu_seqlens[blockIdx.y];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - begin);
  const int first = static_cast<int>(blockIdx.x) * kPairPositions;
  if (first >= n) return;
  const int words = (n + 31) / 32;
  stage_numbers<kPairThreads>(numbers, n, 32 * words, 0u,
                              [&](int i) { return ordered_bits(to_float(scores[begin + i])); });
  __syncthreads();
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32 % kSplit, group = threadIdx.x / 32 / kSplit;
  const int p0 = first + 32 * group, p = p0 + lane;
  const int share = (words + kSplit - 1) / kSplit, from = part * share, to = min(from + share, words);
  uint32_t* masks = numbers + 32 * words * (1 + group) + lane;  // 32 apart
  int count = 0;
  if (p0 < n) {
    const uint32_t own = numbers[p];
    for (int w = from; w < to; ++w) {
      // Which of the 32 are earlier: those beat as equals.
      const uint32_t earlier = 32 * w < p0 ? 0xffffffffu : 32 * w == p0 ? (1u << lane) - 1 : 0u;
      uint32_t mask = 0;
      if (32 * w <= p0) mask = mask_32(numbers + 32 * w, [&](uint32_t v) { return v >= own; }) & earlier;
      if (32 * w >= p0) mask |= mask_32(numbers + 32 * w, [&](uint32_t v) { return v > own; }) & ~earlier;
      masks[32 * w] = mask;
      count += __popc(mask);
    }
  }
  counts[part][32 * group + lane] = count;
  __syncthreads();
  if (p >= n) return;
  int left = k, total = 0;  // keys of this part and of later ones that have yet to beat this one
#pragma unroll
  for (int q = 0; q < kSplit; ++q) {
    const int others = counts[q][32 * group + lane];
    if (q < part) left -= others;
    total += others;
  }
  if (part == 0 && total < k) evicted[begin + p] = n;
  if (left <= 0 || left > count) return;
  int w = from;
  for (; left > __popc(masks[32 * w]); ++w) left -= __popc(masks[32 * w]);
  evicted[begin + p] = max(p, 32 * w + nth_bit(masks[32 * w], left));
}

// ---- by digits

constexpr int kSampleThreads = 256, kDigits = 256;  // a thread a digit: the highest 8 bits of a noise

// A block a sequence: the digits of all noise are counted, and of the positions whose digit may be among the
// best, little more than k, each compares itself with the others.
__global__ void __launch_bounds__(kSampleThreads)
    sample_by_digits_kernel(Layout layout, int k, SampleKey key, bool fill_with_pad, int64_t padded_length,
                            int64_t* __restrict__ sampled) {
  static_assert(kDigits == kSampleThreads);
  extern __shared__ uint64_t candidates[];  // as many as the longest sequence has positions
  __shared__ int of_digit[kDigits], of_warp[kDigits / 32], least, found;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  const uint2 seed = make_uint2(static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
  const auto step = static_cast<uint32_t>(*key.step);
  const uint32_t counted = 0xffffffffu << (32 - key.noise_bits);
  // visit(noise, position) of this thread's positions.
  const auto for_noise = [&](const auto& visit) {
    for (int i = t; 4 * i < n; i += kSampleThreads) {
      const uint4 w = philox(make_uint4(i, blockIdx.x, step, key.purpose_and_layer), seed);
      const uint32_t each[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (4 * i + e < n) visit(each[e] & counted, 4 * i + e);
      }
    }
  };
  of_digit[t] = 0;
  if (t == 0) least = found = 0;
  __syncthreads();
  for_noise([&](uint32_t noise, int) { atomicAdd(&of_digit[noise >> 24], 1); });
  __syncthreads();
  const int own = of_digit[t];
  int from_here = own;  // noise of this digit and of higher ones
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
    const int other = __shfl_down_sync(0xffffffffu, from_here, apart);
    if (lane + apart < 32) from_here += other;
  }
  if (lane == 0) of_warp[warp] = from_here;
  __syncthreads();
#pragma unroll
  for (int w = 1; w < kDigits / 32; ++w) from_here += w > warp ? of_warp[w] : 0;
  if (from_here >= k && from_here - own < k) least = t;
  __syncthreads();
  for_noise([&](uint32_t noise, int position) {
    if (static_cast<int>(noise >> 24) >= least) candidates[atomicAdd(&found, 1)] = ordered(noise, position);
  });
  __syncthreads();
  int64_t* out = sampled + static_cast<int64_t>(blockIdx.x) * k;
  for (int c = t; c < found; c += kSampleThreads) {
    const uint64_t candidate = candidates[c];
    int place = 0;
#pragma unroll 8
    for (int other = 0; other < found; ++other) place += candidates[other] > candidate;
    if (place < k) out[place] = position_of(candidate);
  }
  for (int slot = n + t; slot < k; slot += kSampleThreads)  // short of positions: the padded ones from n on
    out[slot] = fill_with_pad && slot < padded_length ? slot : -1;
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
    const dim3 grid(static_cast<unsigned>(ceil_div(layout.max_seqlen, kPairPositions)),
                    static_cast<unsigned>(layout.batch));
    const auto bytes =
        static_cast<int>(sizeof(uint32_t) * 32 * ceil_div(layout.max_seqlen, 32)) * (1 + kPairGroups);
    const auto kernel = topk_by_pairs_kernel<T>;
    if (bytes > 40 * 1024) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<grid, kPairThreads, bytes, stream>>>(layout, static_cast<int>(k), scores, evicted);
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
    const auto room = static_cast<size_t>(layout.max_seqlen) * sizeof(uint64_t);
    sample_by_digits_kernel<<<static_cast<unsigned>(layout.batch), kSampleThreads, room, stream>>>(
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
