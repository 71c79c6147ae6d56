#include "lib/ops/columns.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"

namespace hax::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where a matrix lies in rows as wide as its stride; count 0 where it is no slice of wider rows.
Columns place_of(const at::Tensor& x) {
  if (x.dim() != 2 || x.size(0) == 0 || x.stride(1) != 1 || x.size(1) >= x.stride(0)) return {0, 0};
  const Columns place{x.storage_offset() % x.stride(0), x.size(1)};
  return place.end() <= x.stride(0) ? place : Columns{0, 0};
}

// Whether a gradient of `piece` lies in a buffer (T, width) from its storage's beginning on.
bool in_buffer(const at::Tensor& gradient, int64_t T, int64_t width, Columns piece) {
  return gradient.defined() && gradient.sizes() == at::IntArrayRef({T, piece.count}) &&
         place_of(gradient).count > 0 && gradient.stride(0) == width &&
         gradient.storage_offset() == piece.begin &&
         gradient.storage().nbytes() >= static_cast<size_t>(T * width) * gradient.element_size();
}

bool same_storage(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() && b.defined() &&
         a.storage().unsafeGetStorageImpl() == b.storage().unsafeGetStorageImpl();
}

// The buffer that a gradient lies in, if the gradients given are all that see it.
at::Tensor own_buffer(int64_t T, int64_t width, const std::vector<Columns>& pieces,
                      const std::vector<at::Tensor>& gradients) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!in_buffer(gradients[i], T, width, pieces[i])) continue;
    std::vector<const at::TensorImpl*> seen_by;
    for (const auto& other : gradients) {
      if (same_storage(gradients[i], other)) seen_by.push_back(other.unsafeGetTensorImpl());
    }
    std::sort(seen_by.begin(), seen_by.end());
    const auto views = std::unique(seen_by.begin(), seen_by.end()) - seen_by.begin();
    if (gradients[i].storage().use_count() == static_cast<size_t>(views))
      return gradients[i].as_strided({T, width}, {width, 1}, 0);
  }
  return {};
}

class SplitColumns : public torch::autograd::Function<SplitColumns> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& rows,
                               const std::vector<Columns>& pieces) {
    std::vector<int64_t> flat{rows.size(0), rows.size(1)};
    variable_list out;
    for (const Columns& piece : pieces) {
      flat.insert(flat.end(), {piece.begin, piece.count});
      out.push_back(detached_columns(rows, piece));
    }
    ctx->saved_data["sizes"] = flat;
    ctx->set_materialize_grads(false);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto flat = ctx->saved_data["sizes"].toIntVector();
    std::vector<Columns> pieces;
    for (size_t i = 2; i < flat.size(); i += 2) pieces.push_back({flat[i], flat[i + 1]});
    const auto given =
        std::find_if(gradients.begin(), gradients.end(), [](const auto& g) { return g.defined(); });
    if (given == gradients.end()) return {at::Tensor(), at::Tensor()};
    return {gathered_gradient(flat[0], flat[1], pieces, gradients, {0, 0}, given->options()), at::Tensor()};
  }
};

}  // namespace

at::Tensor ColumnGradients::like(const at::Tensor& slice) {
  const Columns place = place_of(slice);
  if (place.count == 0 || place.begin % 4 != 0 || slice.stride(0) % 4 != 0)
    return at::empty(slice.sizes(), slice.options());
  const void* of = slice.storage().unsafeGetStorageImpl();
  for (const Buffer& buffer : buffers_) {
    if (buffer.of == of && buffer.rows.size(1) == slice.stride(0))
      return detached_columns(buffer.rows, place);
  }
  buffers_.push_back({of, at::empty({slice.size(0), slice.stride(0)}, slice.options())});
  return detached_columns(buffers_.back().rows, place);
}

at::Tensor gathered_gradient(int64_t T, int64_t width, const std::vector<Columns>& pieces,
                             const std::vector<at::Tensor>& gradients, Columns left_out,
                             const at::TensorOptions& options) {
  at::Tensor buffer = own_buffer(T, width, pieces, gradients);
  if (!buffer.defined()) buffer = at::empty({T, width}, options);
  std::vector<Columns> filled{left_out};
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!gradients[i].defined()) continue;
    filled.push_back(pieces[i]);
    if (same_storage(buffer, gradients[i]) && in_buffer(gradients[i], T, width, pieces[i])) continue;
    buffer.narrow(1, pieces[i].begin, pieces[i].count).copy_(gradients[i]);
  }
  std::sort(filled.begin(), filled.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  filled.push_back({width, 0});
  int64_t reached = 0;
  for (const Columns& columns : filled) {
    if (columns.begin > reached) buffer.narrow(1, reached, columns.begin - reached).zero_();
    reached = std::max(reached, columns.end());
  }
  return buffer;
}

std::vector<at::Tensor> split_columns(const at::Tensor& rows, const std::vector<Columns>& pieces) {
  return SplitColumns::apply(rows, pieces);
}

at::Tensor detached_columns(const at::Tensor& rows, Columns columns) {
  if (columns.begin < 0 || columns.end() > rows.size(1)) {
    std::ostringstream message;
    message << "columns " << columns.begin << " to " << columns.end() << " of rows " << rows.sizes();
    throw std::invalid_argument(message.str());
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return rows.narrow(1, columns.begin, columns.count);
}

}  // namespace hax::ops
