// The three implementations of the loss; the CPU kernel itself is lib/ops/cpu/cross_entropy.h.
#include "lib/ops/cross_entropy.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"
#include "lib/ops/cpu/cross_entropy.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {
namespace {

constexpr int64_t kRowsAThread = 64;

void check(const at::Tensor& logits, const at::Tensor& target) {
  if (logits.dim() == 2 && logits.size(1) > 0 && target.dim() == 1 && target.size(0) == logits.size(0))
    return;
  std::ostringstream message;
  message << "cross_entropy: logits are " << logits.sizes() << " and target " << target.sizes()
          << "; wanted (S, V), (S)";
  throw std::invalid_argument(message.str());
}

// Row by row.
CrossEntropy reference(const at::Tensor& logits, const at::Tensor& target) {
  at::Tensor sum = logits.narrow(0, 0, 0).sum();  // zero, and in the graph also without rows
  at::Tensor correct = at::zeros_like(target, at::kBool);
  for (int64_t s = 0; s < logits.size(0); ++s) {
    const int64_t wanted = target[s].item<int64_t>();
    sum = sum + at::logsumexp(logits[s], 0) - logits[s][wanted];
    correct[s] = at::argmax(logits[s]).item<int64_t>() == wanted;
  }
  return {sum / static_cast<double>(std::max<int64_t>(logits.size(0), 1)), correct};
}

CrossEntropy composite(const at::Tensor& logits, const at::Tensor& target) {
  const at::Tensor chosen = at::log_softmax(logits, 1).gather(1, target.unsqueeze(1));
  return {-chosen.sum() / static_cast<double>(std::max<int64_t>(logits.size(0), 1)),
          at::argmax(logits, 1).eq(target)};
}

class CpuCrossEntropy : public torch::autograd::Function<CpuCrossEntropy> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& logits, const at::Tensor& target) {
    const int64_t S = logits.size(0), V = logits.size(1);
    const at::Tensor rows = logits.contiguous(), wanted = target.contiguous();
    const int64_t* wanted_data = wanted.const_data_ptr<int64_t>();
    for (int64_t s = 0; s < S; ++s) {
      if (wanted_data[s] < 0 || wanted_data[s] >= V) {
        throw std::invalid_argument("cross_entropy: target " + std::to_string(wanted_data[s]) +
                                    " is outside a vocabulary of " + std::to_string(V));
      }
    }
    at::Tensor losses = at::empty({S}, rows.options()), normalisers = at::empty({S, 2}, rows.options());
    at::Tensor correct = at::empty({S}, rows.options().dtype(at::kBool));
    at::parallel_for(0, S, kRowsAThread, [&](int64_t begin, int64_t end) {
      cpu::cross_entropy_forward(rows.const_data_ptr<float>(), wanted_data, V, losses.data_ptr<float>(),
                                 as_normalisers(normalisers), correct.data_ptr<bool>(), begin, end);
    });
    double sum = 0;
    for (int64_t s = 0; s < S; ++s) sum += losses.const_data_ptr<float>()[s];
    ctx->save_for_backward({rows, wanted, normalisers});
    ctx->mark_non_differentiable({correct});
    return {at::scalar_tensor(sum / static_cast<double>(std::max<int64_t>(S, 1)), rows.options()), correct};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& logits = saved[0];
    const int64_t S = logits.size(0);
    at::Tensor dlogits = at::empty_like(logits);
    const float scale = gradients[0].item<float>() / static_cast<float>(std::max<int64_t>(S, 1));
    at::parallel_for(0, S, kRowsAThread, [&](int64_t begin, int64_t end) {
      cpu::cross_entropy_backward(logits.const_data_ptr<float>(), saved[1].const_data_ptr<int64_t>(),
                                  logits.size(1), as_normalisers(saved[2]), scale, dlogits.data_ptr<float>(),
                                  begin, end);
    });
    return {dlogits, at::Tensor()};
  }

 private:
  static cpu::Normaliser* as_normalisers(const at::Tensor& pairs) {
    static_assert(sizeof(cpu::Normaliser) == 2 * sizeof(float));
    return reinterpret_cast<cpu::Normaliser*>(pairs.data_ptr<float>());
  }
};

}  // namespace

CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& target, Path path) {
  check(logits, target);
  if (use_cpu_kernel("cross_entropy", path, logits)) {
    const auto result = CpuCrossEntropy::apply(logits, target);
    return {result[0], result[1]};
  }
#ifdef HAX_CUDA
  if (use_cuda_kernel("cross_entropy", path, logits))
    return cross_entropy_cuda(logits, target, /*rounds=*/false);
#endif
  const at::Tensor rows = logits.to(compute_type(logits));
  return path == Path::reference ? reference(rows, target) : composite(rows, target);
}

CrossEntropy rounded_cross_entropy(const at::Tensor& logits, const at::Tensor& target, Path path) {
  check(logits, target);
#ifdef HAX_CUDA
  if (use_cuda_kernel("rounded_cross_entropy", path, logits))
    return cross_entropy_cuda(logits, target, /*rounds=*/true);
#endif
  const auto wide = compute_type(logits);
  const at::Tensor chosen = at::log_softmax(logits, 1).gather(1, target.unsqueeze(1));
  const at::Tensor mean = chosen.sum(wide) / -static_cast<double>(std::max<int64_t>(logits.size(0), 1));
  return {mean.to(logits.scalar_type()).to(wide), at::argmax(logits, 1).eq(target)};
}

}  // namespace hax::ops
