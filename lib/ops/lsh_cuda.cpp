#include "lib/ops/cuda/lsh.h"

#include "lib/ops/cuda_tensors.h"

namespace hax::ops {
namespace {

cuda::HashCentring kernel_centring(HashStatistics statistics) {
  switch (statistics) {
    case HashStatistics::none:
      return cuda::HashCentring::none;
    case HashStatistics::running_mean:
      return cuda::HashCentring::running_mean;
    case HashStatistics::whole_sequence:
      return cuda::HashCentring::whole_sequence;
  }
  throw std::invalid_argument("lsh: unknown statistics");
}

}  // namespace

Refusal lsh_cuda_refusal(const at::Tensor& K, int64_t h, int64_t n_bins) {
  return first_refusal({above("d_qk", K.size(1), cuda::kLshWidest),
                        above("projections", h, cuda::kLshMostBits),
                        above("bins", n_bins, cuda::kLshMostBins)});
}

LshMembership lsh_cuda(const at::Tensor& K_in, const at::Tensor& Q_in, const at::Tensor& R_in,
                       const HashFunction& hash, int64_t width, const PackedLayout& layout) {
  const at::Tensor K = as_rows(K_in), Q = as_rows(Q_in);
  const at::Tensor R = R_in.to(K.options().dtype(at::kFloat)).contiguous();
  const auto words = [&] { return at::empty({layout.total()}, layout.position.options()); };
  const LshMembership out{words(), words(), words(), words(), width, hash.n_bins};
  const cuda::LshShape shape{K.size(1), R.size(1), hash.sign, hash.n_bins, layout.padded_length};
  const at::Tensor work = at::empty({cuda::lsh_scratch_floats(cuda_layout(layout), shape)}, R.options());
  with_element_type(K, [&](auto element) {
    using T = decltype(element);
    cuda::lsh<T>(cuda_layout(layout), shape, kernel_centring(hash.statistics), device_rows<T>(K),
                 device_rows<T>(Q), device_data<float>(R), mutable_device_data<int64_t>(out.query_bin),
                 mutable_device_data<int64_t>(out.key_bin), mutable_device_data<int64_t>(out.rank),
                 mutable_device_data<int64_t>(out.count), mutable_device_data<float>(work), cuda_stream());
  });
  return out;
}

}  // namespace hax::ops
