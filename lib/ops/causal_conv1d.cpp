// The three implementations of the convolution; the CPU kernel itself is lib/ops/cpu/causal_conv1d.h.
#include "lib/ops/causal_conv1d.h"

#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"
#include "lib/ops/cpu/causal_conv1d.h"
#include "lib/ops/cpu/reduce.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {
namespace {

// (channels, width)
at::Tensor matrix_of(const at::Tensor& weight) {
  return weight.dim() == 3 && weight.size(1) == 1 ? weight.squeeze(1) : weight;
}

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t tokens) {
  const bool fits = x.dim() == 2 && x.size(0) == tokens && weight.dim() == 2 && weight.size(0) == x.size(1) &&
                    weight.size(1) >= 1 && bias.dim() == 1 && bias.size(0) == x.size(1);
  if (fits) return;
  std::ostringstream message;
  message << "causal_conv1d: x is " << x.sizes() << ", weight " << weight.sizes() << ", bias " << bias.sizes()
          << "; wanted (" << tokens << ", channels), (channels, width), (channels)";
  throw std::invalid_argument(message.str());
}

at::Tensor reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     const PackedLayout& layout) {
  const auto type = compute_type(x);
  const at::Tensor in = x.to(type), taps = weight.to(type);
  const int64_t width = weight.size(1);
  std::vector<at::Tensor> y;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    for (int64_t t = layout.offsets[b]; t < layout.offsets[b + 1]; ++t) {
      at::Tensor sum = bias.to(type);
      for (int64_t back = 0; back < width && t - back >= layout.offsets[b]; ++back) {
        sum = sum + taps.select(1, width - 1 - back) * in[t - back];
      }
      y.push_back(at::silu(sum));
    }
  }
  return at::stack(y).to(x.scalar_type());
}

at::Tensor composite(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     const PackedLayout& layout) {
  const auto type = compute_type(x);
  const at::Tensor in = x.to(type), taps = weight.to(type);
  const int64_t T = x.size(0), width = weight.size(1);
  const at::Tensor shifted = at::constant_pad_nd(in, {0, 0, width - 1, 0});
  at::Tensor sum = at::addcmul(bias.to(type), in, taps.select(1, width - 1));
  for (int64_t back = 1; back < width; ++back) {
    const at::Tensor inside = (layout.position >= back).unsqueeze(1);
    const at::Tensor rows = shifted.narrow(0, width - 1 - back, T).masked_fill(~inside, 0);
    sum = at::addcmul(sum, rows, taps.select(1, width - 1 - back));
  }
  return at::silu(sum).to(x.scalar_type());
}

class CpuConv : public torch::autograd::Function<CpuConv> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias, const PackedLayout& layout) {
    const at::Tensor rows = as_rows(x), taps = weight.t().contiguous(), shift = bias.contiguous();
    const cpu::ConvInput in = kernel_input(rows, taps, shift, layout.position, layout.seq_id);
    at::Tensor y = at::empty(x.sizes(), x.options());
    float* y_data = y.data_ptr<float>();
    at::parallel_for(0, in.blocks(), 1,
                     [&](int64_t begin, int64_t end) { cpu::conv_forward(in, y_data, begin, end); });
    ctx->save_for_backward({rows, taps, shift, layout.position, layout.seq_id});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const cpu::ConvInput in = kernel_input(saved[0], saved[1], saved[2], saved[3], saved[4]);
    const at::Tensor dy = as_rows(gradients[0]);
    const auto options = saved[0].options();
    at::Tensor dx = at::empty({in.tokens, in.channels}, options);
    at::Tensor parts = at::empty({in.blocks(), in.width + 1, in.channels}, options);
    at::Tensor sums = at::empty({in.width + 1, in.channels}, options);
    at::parallel_for(0, in.blocks(), 1, [&](int64_t begin, int64_t end) {
      cpu::conv_backward(in, const_rows(dy), dx.data_ptr<float>(), parts.data_ptr<float>(), begin, end);
    });
    cpu::sum_parts(parts.const_data_ptr<float>(), in.blocks(), sums.numel(), sums.data_ptr<float>(), 0,
                   sums.numel());
    return {dx, sums.narrow(0, 0, in.width).t(), sums[in.width], at::Tensor()};
  }

 private:
  static cpu::ConvInput kernel_input(const at::Tensor& rows, const at::Tensor& taps, const at::Tensor& bias,
                                     const at::Tensor& position, const at::Tensor& seq_id) {
    return {const_rows(rows),
            taps.const_data_ptr<float>(),
            bias.const_data_ptr<float>(),
            position.const_data_ptr<int64_t>(),
            seq_id.const_data_ptr<int64_t>(),
            rows.size(0),
            rows.size(1),
            taps.size(0)};
  }
};

}  // namespace

std::vector<at::Tensor> causal_conv1d_pieces(const at::Tensor& rows, int64_t first, const at::Tensor& weight,
                                             const at::Tensor& bias, const PackedLayout& layout,
                                             const std::vector<Columns>& pieces, Path path) {
  const int64_t last = first + weight.size(0);
  if (rows.dim() != 2 || first < 0 || last > rows.size(1)) {
    std::ostringstream message;
    message << "causal_conv1d_pieces: rows " << rows.sizes() << " have no columns " << first << " to "
            << last;
    throw std::invalid_argument(message.str());
  }
  int64_t convolved_pieces = 0;
  for (const Columns& piece : pieces) {
    const bool convolved = piece.begin >= first && piece.end() <= last;
    convolved_pieces += convolved;
    const bool apart = piece.end() <= first || piece.begin >= last;
    if (piece.begin >= 0 && piece.end() <= rows.size(1) && (convolved || apart)) continue;
    throw std::invalid_argument("causal_conv1d_pieces: columns " + std::to_string(piece.begin) + " to " +
                                std::to_string(piece.end()) + " lie over an edge of those from " +
                                std::to_string(first) + " to " + std::to_string(last));
  }
  if (convolved_pieces > kMostConvolvedPieces)
    throw std::invalid_argument("causal_conv1d_pieces: " + std::to_string(convolved_pieces) + " pieces of " +
                                "convolved columns, at most " + std::to_string(kMostConvolvedPieces));
#ifdef HAX_CUDA
  if (use_cuda_kernel("causal_conv1d", path, rows, [&] { return causal_conv1d_cuda_refusal(weight); })) {
    check(rows.narrow(1, first, weight.size(0)), matrix_of(weight), bias, layout.total());
    return causal_conv1d_cuda(rows, first, weight, bias, layout, pieces);
  }
#endif
  const at::Tensor y = causal_conv1d(rows.narrow(1, first, weight.size(0)), weight, bias, layout, path);
  std::vector<at::Tensor> out;
  for (const Columns& piece : pieces) {
    const bool convolved = piece.begin >= first && piece.end() <= last;
    out.push_back(convolved ? y.narrow(1, piece.begin - first, piece.count)
                            : rows.narrow(1, piece.begin, piece.count));
  }
  return out;
}

at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const PackedLayout& layout, Path path) {
  const at::Tensor taps = matrix_of(weight);
  check(x, taps, bias, layout.total());
  if (path == Path::reference) return reference(x, taps, bias, layout);
#ifdef HAX_CUDA
  if (use_cuda_kernel("causal_conv1d", path, x, [&] { return causal_conv1d_cuda_refusal(weight); }))
    return causal_conv1d_cuda(x, 0, weight, bias, layout, {{0, x.size(1)}})[0];
#endif
  if (!use_cpu_kernel("causal_conv1d", path, x, above("width", taps.size(1), cpu::kConvWidest)))
    return composite(x, taps, bias, layout);
  return CpuConv::apply(x, taps.to(at::kFloat), bias.to(at::kFloat), layout);
}

at::Tensor causal_conv1d_step(const at::Tensor& x, const at::Tensor& weight_given, const at::Tensor& bias,
                              at::Tensor& window) {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = matrix_of(weight_given);
  check(x, weight, bias, 1);
  if (window.sizes() != at::IntArrayRef({weight.size(1) - 1, x.size(1)})) {
    std::ostringstream message;
    message << "causal_conv1d_step: window is " << window.sizes() << ", wanted (width - 1, channels)";
    throw std::invalid_argument(message.str());
  }
  const auto type = compute_type(x);
  const at::Tensor inputs = at::cat({window, x.to(window.scalar_type())});  // (width, channels)
  window = inputs.narrow(0, 1, window.size(0)).clone();
  const at::Tensor sum = (inputs.to(type) * weight.to(type).t()).sum(0, true) + bias.to(type);
  return at::silu(sum).to(x.scalar_type());
}

}  // namespace hax::ops
