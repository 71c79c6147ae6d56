#include "lib/ops/causal_conv1d.h"

#include <algorithm>

#include "lib/ops/autograd.h"
#include "lib/ops/columns.h"
#include "lib/ops/cuda/causal_conv1d.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/leaf_gradients.h"
#include "lib/ops/saved_layout.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;

// What the backward pass is told: columns [first, first + channels) of rows (T, n) are convolved.
struct Cut {
  int64_t first, channels;
  std::vector<Columns> pieces;

  explicit Cut(const std::vector<int64_t>& flat) : first(flat[0]), channels(flat[1]) {
    for (size_t i = 2; i < flat.size(); i += 2) pieces.push_back({flat[i], flat[i + 1]});
  }
  Cut(int64_t first, int64_t channels, std::vector<Columns> pieces)
      : first(first), channels(channels), pieces(std::move(pieces)) {}
  std::vector<int64_t> flat() const {
    std::vector<int64_t> out{first, channels};
    for (const Columns& piece : pieces) out.insert(out.end(), {piece.begin, piece.count});
    return out;
  }
  bool convolved(const Columns& piece) const {
    return piece.begin >= first && piece.end() <= first + channels;
  }
};

// The gradients of convolved pieces as the kernel reads them; neighbours in one matrix count once.
static_assert(kMostConvolvedPieces <= cuda::kConvSources);
template <class T>
cuda::ConvUpstream<T> upstream_of(const Cut& cut, const variable_list& gradients, variable_list& kept) {
  cuda::ConvUpstream<T> out{};
  for (size_t i = 0; i < cut.pieces.size(); ++i) {
    const Columns& piece = cut.pieces[i];
    if (!cut.convolved(piece) || !gradients[i].defined() || piece.count == 0) continue;
    kept.push_back(as_rows(gradients[i]));
    const auto rows = device_rows<T>(kept.back());
    const int begin = static_cast<int>(piece.begin - cut.first), end = begin + static_cast<int>(piece.count);
    if (out.count > 0) {
      auto& last = out.source[out.count - 1];
      if (last.end == begin && last.rows.stride == rows.stride &&
          last.rows.data + (last.end - last.begin) == rows.data) {
        last.end = end;
        continue;
      }
    }
    out.source[out.count++] = {rows, begin, end};
  }
  return out;
}

class CudaConv : public torch::autograd::Function<CudaConv> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& rows, const at::Tensor& weight,
                               const at::Tensor& bias, const PackedLayout& layout, const Cut& cut,
                               bool apart) {
    const at::Tensor x = as_rows(rows).narrow(1, cut.first, cut.channels);
    const at::Tensor taps = weight.contiguous(), shift = bias.contiguous();
    const cuda::ConvShape shape{cut.channels, taps.size(-1)};
    const at::Tensor y = at::empty(x.sizes(), x.options());
    with_element_type(x, [&](auto element) {
      using T = decltype(element);
      cuda::conv_forward<T>(cuda_layout(layout), shape, device_rows<T>(x), device_data<float>(taps),
                            device_data<float>(shift), mutable_device_data<T>(y), cuda_stream());
    });
    ctx->save_for_backward({x, taps, shift});
    save_layout(ctx, layout);
    ctx->saved_data["cut"] = cut.flat();
    ctx->saved_data["width"] = rows.size(1);
    ctx->saved_data["apart"] = apart;
    ctx->set_materialize_grads(false);
    variable_list out;
    for (const Columns& piece : cut.pieces) {
      out.push_back(cut.convolved(piece) ? detached_columns(y, {piece.begin - cut.first, piece.count})
                                         : detached_columns(rows, piece));
    }
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &taps = saved[1], &shift = saved[2];
    const auto layout = saved_layout(ctx);
    const Cut cut(ctx->saved_data["cut"].toIntVector());
    const cuda::ConvShape shape{cut.channels, taps.size(-1)};
    std::vector<Columns> others;
    variable_list of_others;
    for (size_t i = 0; i < cut.pieces.size(); ++i) {
      if (cut.convolved(cut.pieces[i])) continue;
      others.push_back(cut.pieces[i]);
      of_others.push_back(std::move(gradients[i]));
    }
    const at::Tensor drows = gathered_gradient(x.size(0), ctx->saved_data["width"].toInt(), others,
                                               std::move(of_others), {cut.first, cut.channels}, x.options());
    const at::Tensor dx = drows.narrow(1, cut.first, cut.channels);
    const auto device = cuda_layout(layout);
    const at::Tensor parts = at::empty({cuda::conv_parts_floats(device, shape)}, taps.options());
    with_element_type(x, [&](auto element) {
      using T = decltype(element);
      variable_list kept;
      cuda::conv_backward<T>(device, shape, device_rows<T>(x), device_data<float>(taps),
                             device_data<float>(shift), upstream_of<T>(cut, gradients, kept),
                             mutable_device_rows<T>(dx), mutable_device_data<float>(parts), cuda_stream());
    });
    const auto of_parameters = parameter_gradients(
        ctx->saved_data["apart"].toBool(), {taps, shift}, {parts}, [&]() -> variable_list {
          const at::Tensor sums = at::empty({(shape.width + 1) * shape.channels}, taps.options());
          cuda::conv_sums(device, shape, device_data<float>(parts), mutable_device_data<float>(sums),
                          cuda_stream());
          return {sums.narrow(0, 0, taps.numel()).view(taps.sizes()),
                  sums.narrow(0, taps.numel(), shape.channels)};
        });
    return {drows, of_parameters[0], of_parameters[1], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Refusal causal_conv1d_cuda_refusal(const at::Tensor& weight) {
  return above("width", weight.size(-1), cuda::kConvWidest);
}

std::vector<at::Tensor> causal_conv1d_cuda(const at::Tensor& rows, int64_t first, const at::Tensor& weight,
                                           const at::Tensor& bias, const PackedLayout& layout,
                                           const std::vector<Columns>& pieces) {
  const at::Tensor taps = weight.to(at::kFloat), shift = bias.to(at::kFloat);
  return CudaConv::apply(rows, taps, shift, layout, Cut(first, weight.size(0), pieces),
                         can_be_apart({taps, shift}));
}

}  // namespace hax::ops
