// What the ops of lib/ops share in choosing an implementation and in handing tensors to CPU kernels.
#pragma once

#include "lib/ops/cpu/reduce.h"
#include "lib/ops/cpu/rows.h"
#include "lib/ops/fallback.h"
#include "lib/ops/layout.h"

namespace hax::ops {

// The dispatch points: does `path` mean the fused kernel of x's device for this input? Where it would but for
// the input (x's dtype, or what `refusal` says), the fallback is noted.
inline bool use_cpu_kernel(const char* op, Path path, const at::Tensor& x, Refusal refusal = {}) {
  if (path != Path::automatic || !x.is_cpu()) return false;
  if (refusal.empty()) refusal = other_dtype("the input", x.scalar_type(), {at::kFloat});
  if (!refusal.empty()) note_fallback(op, x.device(), refusal);
  return refusal.empty();
}

// `refusal`() -> Refusal. fp32 and bf16 have kernels.
template <class F>
bool use_cuda_kernel(const char* op, Path path, const at::Tensor& x, const F& refusal) {
  if (path != Path::automatic || !x.is_cuda()) return false;
  Refusal why = other_dtype("the input", x.scalar_type(), {at::kFloat, at::kBFloat16});
  if (why.empty()) why = refusal();
  if (!why.empty()) note_fallback(op, x.device(), why);
  return why.empty();
}

inline bool use_cuda_kernel(const char* op, Path path, const at::Tensor& x) {
  return use_cuda_kernel(op, path, x, [] { return Refusal(); });
}

// The type that an op computes in.
inline at::ScalarType compute_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline bool wants_gradient(std::initializer_list<at::Tensor> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const auto& input : inputs) {
    if (input.requires_grad()) return true;
  }
  return false;
}

// (T, ...) -> (T, columns) whose rows are contiguous, without a copy where x is a slice of columns.
inline at::Tensor as_rows(const at::Tensor& x) {
  const at::Tensor rows = x.reshape({x.size(0), -1});
  return rows.size(1) <= 1 || rows.stride(1) == 1 ? rows : rows.contiguous();
}

inline cpu::ConstRows const_rows(const at::Tensor& rows) {
  return {rows.const_data_ptr<float>(), rows.stride(0)};
}

// (parts, ...) -> (...): what the tasks of a kernel wrote apart, summed in their order.
inline at::Tensor sum_of_parts(const at::Tensor& parts) {
  if (parts.size(0) == 1) return parts[0];
  at::Tensor sum = at::empty(parts.sizes().slice(1), parts.options());
  const int64_t n = sum.numel();
  at::parallel_for(0, n, 4096, [&](int64_t begin, int64_t end) {
    cpu::sum_parts(parts.const_data_ptr<float>(), parts.size(0), n, sum.data_ptr<float>(), begin, end);
  });
  return sum;
}

}  // namespace hax::ops
