#include "lib/ops/keys_queries.h"

#include "lib/ops/autograd.h"
#include "lib/ops/cuda/keys_queries.h"
#include "lib/ops/cuda_tensors.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where sums go, if anywhere.
struct Summing {
  const PackedLayout* layout;
  at::Tensor sums;
};

class CudaKeysQueries : public torch::autograd::Function<CudaKeysQueries> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& rows_in, double scale,
                               const Summing& summing) {
    const at::Tensor rows = aligned_rows(rows_in);
    const int64_t T = rows.size(0), d = rows.size(1) / 2;
    const at::Tensor K = at::empty({T, d}, rows.options()), Q = at::empty({T, d}, rows.options());
    with_element_type(rows, [&](auto element) {
      using E = decltype(element);
      const auto by = static_cast<float>(scale);
      const auto from = device_rows<E>(rows);
      E *keys = mutable_device_data<E>(K), *queries = mutable_device_data<E>(Q);
      if (summing.sums.defined())
        cuda::split_keys_queries<E>(cuda_layout(*summing.layout), d, by, from, keys, queries,
                                    mutable_device_data<float>(summing.sums), cuda_stream());
      else
        cuda::split_keys_queries<E>(T, d, by, from, keys, queries, cuda_stream());
    });
    ctx->saved_data["scale"] = scale;
    return {K, Q};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor dK = aligned_rows(gradients[0]), dQ = aligned_rows(gradients[1]);
    const int64_t T = dK.size(0), d = dK.size(1);
    const at::Tensor rows = at::empty({T, 2 * d}, dK.options());
    with_element_type(rows, [&](auto element) {
      using E = decltype(element);
      cuda::join_keys_queries<E>(T, d, static_cast<float>(ctx->saved_data["scale"].toDouble()),
                                 device_rows<E>(dK), device_rows<E>(dQ), mutable_device_data<E>(rows),
                                 cuda_stream());
    });
    return {rows, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool has_keys_queries_cuda(const at::Tensor& rows) {
  const auto type = rows.scalar_type();
  return rows.is_cuda() && (type == at::kFloat || type == at::kBFloat16) &&
         rows.size(1) / 2 * rows.element_size() % 16 == 0;
}

KeysQueries keys_queries_cuda(const at::Tensor& rows, double scale, const PackedLayout* layout) {
  Summing summing{layout, {}};
  const int64_t d = rows.size(1) / 2;
  if (layout && d <= cuda::kSummedWidest)
    summing.sums =
        at::empty({cuda::keys_queries_sums(cuda_layout(*layout), d)}, rows.options().dtype(at::kFloat));
  const auto both = CudaKeysQueries::apply(rows, scale, summing);
  return {both[0], both[1], summing.sums};
}

}  // namespace hax::ops
