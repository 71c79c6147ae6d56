#include "lib/ops/lsh.h"

#include "lib/ops/cpu/lsh.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/for_sequences.h"

namespace hax::ops {
namespace {

constexpr double kNormEps = 1e-12;
constexpr int64_t kMaxBits = 30;

// (B) int64: real positions of each sequence.
at::Tensor lengths(const PackedLayout& layout) { return layout.cu_seqlens.diff(); }

at::Tensor centre_over_sequence_reference(const at::Tensor& x, const PackedLayout& layout) {
  std::vector<at::Tensor> result;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const at::Tensor padded = at::constant_pad_nd(x.slice(0, layout.offsets[b], layout.offsets[b + 1]),
                                                  {0, 0, 0, layout.padded_length - layout.seqlen(b)});
    const at::Tensor centred = padded - padded.mean(0);
    const at::Tensor normalised = centred / centred.norm(2, 0).clamp_min(kNormEps);
    result.push_back(normalised.slice(0, 0, layout.seqlen(b)));
  }
  return at::cat(result);
}

at::Tensor centre_by_running_mean_reference(const at::Tensor& x, const PackedLayout& layout) {
  at::Tensor result = at::empty_like(x);
  for (int64_t b = 0; b < layout.batch(); ++b) {
    for (int64_t row = layout.offsets[b]; row < layout.offsets[b + 1]; ++row) {
      result[row].copy_(x[row] - x.slice(0, layout.offsets[b], row + 1).mean(0));
    }
  }
  return result;
}

LshMembership membership_reference(const at::Tensor& query_bin, const at::Tensor& key_bin, int64_t n_bins,
                                   int64_t width, const PackedLayout& layout) {
  at::Tensor rank = at::zeros_like(key_bin), count = at::zeros_like(key_bin);
  for (int64_t b = 0; b < layout.batch(); ++b) {
    for (int64_t i = layout.offsets[b]; i < layout.offsets[b + 1]; ++i) {
      for (int64_t j = layout.offsets[b]; j <= i; ++j) {
        if (j < i && (key_bin[j] == key_bin[i]).item<bool>()) rank[i] += 1;
        if ((key_bin[j] == query_bin[i]).item<bool>()) count[i] += 1;
      }
    }
  }
  return {query_bin, key_bin, rank, count, width, n_bins};
}

// Keys sorted by (sequence, bin, position); how many lie before a place in that order is a binary search.
LshMembership membership_composite(const at::Tensor& query_bin, const at::Tensor& key_bin, int64_t n_bins,
                                   int64_t width, const PackedLayout& layout) {
  const int64_t L = layout.max_seqlen;
  const at::Tensor key_start = (layout.seq_id * n_bins + key_bin) * L,
                   key_place = key_start + layout.position;
  const at::Tensor query_start = (layout.seq_id * n_bins + query_bin) * L,
                   query_place = query_start + layout.position;
  const at::Tensor sorted = std::get<0>(key_place.sort());
  const auto before = [&](const at::Tensor& place, bool inclusive) {
    return at::searchsorted(sorted, place, /*out_int32=*/false, /*right=*/inclusive);
  };
  return {query_bin,
          key_bin,
          before(key_place, false) - before(key_start, false),
          before(query_place, true) - before(query_start, false),
          width,
          n_bins};
}

}  // namespace

at::Tensor centre_over_sequence(const at::Tensor& x, const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
  if (path == Path::reference) return centre_over_sequence_reference(x, layout);
  const auto type = x.scalar_type(), wide = compute_type(x);
  const at::Tensor mean = (to_padded(x.to(wide), layout).sum(1) / layout.padded_length).to(type);  // (B, d)
  const at::Tensor centred = x - mean.index_select(0, layout.seq_id);
  const at::Tensor padding = (layout.padded_length - lengths(layout)).unsqueeze(1);  // (B, 1)
  const at::Tensor square =
      to_padded(centred.to(wide), layout).square().sum(1) + padding * mean.to(wide).square();
  return centred / square.sqrt().to(type).clamp_min(kNormEps).index_select(0, layout.seq_id);
}

at::Tensor centre_by_running_mean(const at::Tensor& x_in, const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
  if (use_cpu_kernel("centre_by_running_mean", path, x_in)) {
    const at::Tensor x = as_rows(x_in);
    at::Tensor y = at::empty(x.sizes(), x.options());
    for_sequences(layout, [&](int64_t begin, int64_t end) {
      cpu::centre_by_running_mean(const_rows(x), x.size(1), layout.offsets.data(), begin, end,
                                  y.mutable_data_ptr<float>());
    });
    return y;
  }
  const at::Tensor x = x_in.to(compute_type(x_in));
  if (path == Path::reference) return centre_by_running_mean_reference(x, layout);
  const at::Tensor sums = to_packed(to_padded(x, layout).cumsum(1), layout);
  return x - sums / (layout.position + 1).unsqueeze(1);
}

at::Tensor sign_bins(const at::Tensor& projection_in, Path path) {
  const at::NoGradGuard no_grad;
  const int64_t h = projection_in.size(1);
  if (h > kMaxBits) throw std::invalid_argument("sign_bins takes at most 30 bits, not " + std::to_string(h));
  if (use_cpu_kernel("sign_bins", path, projection_in)) {
    const at::Tensor projection = projection_in.contiguous();
    at::Tensor bin = at::empty({projection.size(0)}, projection.options().dtype(at::kLong));
    at::parallel_for(0, projection.size(0), 4096, [&](int64_t begin, int64_t end) {
      cpu::sign_bins(projection.const_data_ptr<float>(), h, begin, end, bin.mutable_data_ptr<int64_t>());
    });
    return bin;
  }
  at::Tensor bin = at::zeros({projection_in.size(0)}, projection_in.options().dtype(at::kLong));
  for (int64_t b = 0; b < h; ++b) bin += (projection_in.select(1, b) > 0).to(at::kLong).mul_(int64_t{1} << b);
  return bin;
}

at::Tensor argmax_bins(const at::Tensor& projection) {
  const at::NoGradGuard no_grad;
  // argmax does not say which of equal values it takes; the first of the largest does.
  const int64_t h = projection.size(1);
  const at::Tensor places = at::arange(h, projection.options().dtype(at::kLong));
  return at::where(projection == projection.amax(1, true), places, h - 1).amin(1);
}

LshMembership lsh_membership(const at::Tensor& query_bin_in, const at::Tensor& key_bin_in, int64_t n_bins,
                             int64_t width, const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
  const at::Tensor query_bin = query_bin_in.contiguous(), key_bin = key_bin_in.contiguous();
  if (path == Path::reference) return membership_reference(query_bin, key_bin, n_bins, width, layout);
  if (path == Path::composite || !query_bin.is_cpu()) {
    return membership_composite(query_bin, key_bin, n_bins, width, layout);
  }
  LshMembership result{query_bin, key_bin, at::empty_like(key_bin), at::empty_like(key_bin), width, n_bins};
  for_sequences(layout, [&](int64_t begin, int64_t end) {
    cpu::lsh_ranks(query_bin.const_data_ptr<int64_t>(), key_bin.const_data_ptr<int64_t>(), n_bins,
                   layout.offsets.data(), begin, end, result.rank.mutable_data_ptr<int64_t>(),
                   result.count.mutable_data_ptr<int64_t>());
  });
  return result;
}

LshDecision lsh(const at::Tensor& K, const at::Tensor& Q, const at::Tensor& R_in, const HashFunction& hash,
                int64_t width, const PackedLayout& layout, Path path) {
  const at::NoGradGuard no_grad;
#ifdef HAX_CUDA
  const auto refusal = [&] { return lsh_cuda_refusal(K, R_in.size(1), hash.n_bins); };
  if (use_cuda_kernel("lsh", path, K, refusal)) return {lsh_cuda(K, Q, R_in, hash, width, layout), {}, {}};
#endif
  const auto statistics = [&](const at::Tensor& x) {
    switch (hash.statistics) {
      case HashStatistics::whole_sequence:
        return centre_over_sequence(x, layout, path);
      case HashStatistics::running_mean:
        return centre_by_running_mean(x.to(compute_type(x)), layout, path);
      case HashStatistics::none:
        break;
    }
    return x.to(compute_type(x));
  };
  const auto bins = [&](const at::Tensor& projection) {
    return hash.sign ? sign_bins(projection, path) : argmax_bins(projection);
  };
  const at::Tensor k = statistics(K), q = statistics(Q);
  const at::Tensor R = R_in.to(k.options());
  LshDecision out;
  out.query_projection = q.mm(R);
  out.key_projection = k.mm(R);
  out.membership =
      lsh_membership(bins(out.query_projection), bins(out.key_projection), hash.n_bins, width, layout, path);
  return out;
}

}  // namespace hax::ops
