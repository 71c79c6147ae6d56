#include "lib/ops/linear_scan.h"

#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"

namespace hax::ops {
namespace {

constexpr int64_t kRun = 32;  // rows

// a, x (T, M). Backwards: h_t = a_t h_{t+1} + x_t.
at::Tensor scan(const at::Tensor& a, const at::Tensor& x, bool backwards) {
  const int64_t T = x.size(0), M = x.size(1);
  const int64_t runs = (T + kRun - 1) / kRun, missing = runs == 1 ? 0 : runs * kRun - T;
  const int64_t length = runs == 1 ? T : kRun;
  // A copy. Rows of zeros behind the last one change nothing, in either direction.
  const auto cut = [&](const at::Tensor& rows) {
    const at::Tensor copy = missing > 0 ? at::constant_pad_nd(rows, {0, 0, 0, missing})
                                        : rows.clone(at::MemoryFormat::Contiguous);
    return copy.view({runs, length, M});
  };
  const auto place = [&](int64_t i, int64_t n) { return backwards ? n - 1 - i : i; };
  const at::Tensor decay = cut(a), h = cut(x);
  for (int64_t i = 1; i < length; ++i) {
    const int64_t here = place(i, length), before = place(i - 1, length);
    h.select(1, here).addcmul_(decay.select(1, here), h.select(1, before));
  }
  if (runs > 1) {
    const at::Tensor& reached = decay;  // from here on the product of the decays since the run's beginning
    for (int64_t i = 1; i < length; ++i) {
      reached.select(1, place(i, length)).mul_(reached.select(1, place(i - 1, length)));
    }
    const int64_t last = place(length - 1, length);
    const at::Tensor ends = scan(reached.select(1, last), h.select(1, last), backwards).unsqueeze(1);
    const int64_t from = backwards ? 1 : 0, to = 1 - from;
    h.narrow(0, to, runs - 1).addcmul_(reached.narrow(0, to, runs - 1), ends.narrow(0, from, runs - 1));
  }
  return h.view({runs * length, M}).narrow(0, 0, T);
}

class LinearScan : public torch::autograd::Function<LinearScan> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& a, const at::Tensor& x) {
    const at::Tensor h = scan(a.flatten(1), x.flatten(1), false).view(x.sizes());
    ctx->save_for_backward({a, h});
    return h;
  }

  // g_t = dh_t + a_{t+1} g_{t+1};  da_t = g_t h_{t-1};  dx = g.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &a = saved[0], &h = saved[1], &dh = gradients[0];
    const int64_t T = h.size(0);
    const at::Tensor first = at::zeros_like(h.narrow(0, 0, 1));
    const at::Tensor next = at::cat({a.narrow(0, 1, T - 1), first});
    const at::Tensor g = scan(next.flatten(1), dh.reshape(h.sizes()).flatten(1), true).view(h.sizes());
    return {g * at::cat({first, h.narrow(0, 0, T - 1)}), g};
  }
};

}  // namespace

at::Tensor linear_scan(const at::Tensor& a, const at::Tensor& x) {
  if (a.sizes() != x.sizes() || x.dim() < 1 || x.size(0) < 1) {
    std::ostringstream message;
    message << "linear_scan: a is " << a.sizes() << " and x " << x.sizes()
            << "; wanted one shape (T, ...) with T >= 1";
    throw std::invalid_argument(message.str());
  }
  return LinearScan::apply(a, x);
}

}  // namespace hax::ops
