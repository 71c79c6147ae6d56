#include "lib/ops/overwrite.h"

#include <sstream>
#include <stdexcept>

namespace hax::ops {
namespace {

at::Tensor reference(const at::Tensor& x, const PackedLayout& layout) {
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    at::Tensor h = at::zeros_like(x[0]);
    for (int64_t t = layout.offsets[b]; t < layout.offsets[b + 1]; ++t) {
      h = at::where(x[t] != 0, x[t], h);
      rows.push_back(h);
    }
  }
  return at::stack(rows);
}

// The last row that wrote a feature is a running maximum over row numbers; one of an earlier sequence wrote
// nothing here.
at::Tensor composite(const at::Tensor& x, const PackedLayout& layout) {
  const at::Tensor row = at::arange(x.size(0), layout.seq_id.options()).unsqueeze(1);  // (T, 1)
  const at::Tensor writes = at::where(x != 0, row, at::full_like(row, -1));            // (T, F)
  const at::Tensor writer = std::get<0>(writes.cummax(0));
  const at::Tensor held = x.gather(0, writer.clamp_min(0));
  return held.masked_fill(writer < row - layout.position.unsqueeze(1), 0.0);
}

}  // namespace

at::Tensor overwrite(const at::Tensor& x, const PackedLayout& layout, Path path) {
  if (x.dim() != 2 || x.size(0) != layout.total()) {
    std::ostringstream message;
    message << "overwrite: x is " << x.sizes() << ", wanted (" << layout.total() << ", F)";
    throw std::invalid_argument(message.str());
  }
  return path == Path::reference ? reference(x, layout) : composite(x, layout);
}

}  // namespace hax::ops
