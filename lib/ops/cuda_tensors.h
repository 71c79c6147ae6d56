// Tensors as the CUDA kernels take them.
#pragma once

#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {

inline cudaStream_t cuda_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

inline cuda::Layout cuda_layout(const PackedLayout& layout) {
  return {layout.cu_seqlens.const_data_ptr<int64_t>(),
          layout.seq_id.const_data_ptr<int64_t>(),
          layout.position.const_data_ptr<int64_t>(),
          layout.batch(),
          layout.total(),
          layout.max_seqlen};
}

// T = float or __nv_bfloat16; the tensor is of that type.
template <class T>
const T* device_data(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* mutable_device_data(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}
// Of a matrix whose rows are contiguous (as_rows).
template <class T>
cuda::Rows<const T> device_rows(const at::Tensor& rows) {
  return {device_data<T>(rows), rows.stride(0)};
}
template <class T>
cuda::Rows<T> mutable_device_rows(const at::Tensor& rows) {
  return {mutable_device_data<T>(rows), rows.stride(0)};
}

// Rows that 16-byte loads can read.
inline at::Tensor aligned_rows(const at::Tensor& x) {
  const at::Tensor rows = as_rows(x);
  const bool aligned = reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 16 == 0 &&
                       rows.stride(0) * rows.element_size() % 16 == 0;
  return aligned ? rows : rows.clone(at::MemoryFormat::Contiguous);
}

// f(T()) with the element type of x.
template <class F>
void with_element_type(const at::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kBFloat16)
    f(__nv_bfloat16());
  else
    f(float());
}

inline at::Tensor device_scratch(int64_t bytes, const at::Tensor& like) {
  return at::empty({bytes}, like.options().dtype(at::kByte));
}

}  // namespace hax::ops
