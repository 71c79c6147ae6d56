#include "lib/ops/keys_queries.h"

#include "lib/ops/autograd.h"
#include "lib/ops/cuda/keys_queries.h"
#include "lib/ops/cuda_tensors.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaKeysQueries : public torch::autograd::Function<CudaKeysQueries> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& rows_in, double scale) {
    const at::Tensor rows = aligned_rows(rows_in);
    const int64_t T = rows.size(0), d = rows.size(1) / 2;
    const at::Tensor K = at::empty({T, d}, rows.options()), Q = at::empty({T, d}, rows.options());
    with_element_type(rows, [&](auto element) {
      using E = decltype(element);
      cuda::split_keys_queries<E>(T, d, static_cast<float>(scale), device_rows<E>(rows),
                                  mutable_device_data<E>(K), mutable_device_data<E>(Q), cuda_stream());
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
    return {rows, at::Tensor()};
  }
};

}  // namespace

bool has_keys_queries_cuda(const at::Tensor& rows) {
  const auto type = rows.scalar_type();
  return rows.is_cuda() && (type == at::kFloat || type == at::kBFloat16) &&
         rows.size(1) / 2 * rows.element_size() % 16 == 0;
}

KeysQueries keys_queries_cuda(const at::Tensor& rows, double scale) {
  const auto both = CudaKeysQueries::apply(rows, scale);
  return {both[0], both[1]};
}

}  // namespace hax::ops
