// Slices of columns: several quantities that one projection gives lie side by side in its rows, and their
// gradients want to lie the same way, so that nothing has to be put together afterwards.
//
// An op that gives the gradient of such a slice may leave it in a buffer with rows as wide as the slice's,
// at the slice's columns. Whoever gathers the gradients of all slices fills in the buffer's other columns,
// where nobody else sees them.
#pragma once

#include <vector>

#include "lib/ops/torch.h"

namespace hax::ops {

struct Columns {
  int64_t begin, count;
  int64_t end() const { return begin + count; }
};

// Gradients of one op's inputs, not initialised. Slices of the same rows share a buffer, provided that
// columns and width are multiples of 4: kernels store some numbers at once.
class ColumnGradients {
 public:
  at::Tensor like(const at::Tensor& slice);  // (T, columns) whose rows are contiguous (as_rows)

 private:
  struct Buffer {
    const void* of;
    at::Tensor rows;
  };
  std::vector<Buffer> buffers_;
};

// The gradient (T, width) of rows from those of their `pieces`, which do not overlap; columns of undefined
// gradients and of no piece are zero, those in `left_out` are not initialised. Takes the buffer that
// gradients lie in over, if nobody else sees it.
at::Tensor gathered_gradient(int64_t T, int64_t width, const std::vector<Columns>& pieces,
                             const std::vector<at::Tensor>& gradients, Columns left_out,
                             const at::TensorOptions& options);

// The pieces of rows (T, width), in any order; they do not overlap. Differentiable.
std::vector<at::Tensor> split_columns(const at::Tensor& rows, const std::vector<Columns>& pieces);

// A slice that autograd knows nothing of, as an autograd function gives them out; it does not keep `rows`
// alive.
at::Tensor detached_columns(const at::Tensor& rows, Columns columns);

}  // namespace hax::ops
