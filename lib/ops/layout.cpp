// Packed layouts and the way between packed and padded tensors.
#include "lib/ops/layout.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace hax::ops {
namespace {

at::Tensor to_device(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong)).to(device);
}

// Every sequence as long as the longest: the two forms are views of each other.
bool uniform(const PackedLayout& layout) { return layout.total() == layout.batch() * layout.max_seqlen; }

void check_host_lengths(const PackedLayout& layout) {
  if (layout.device_lengths) throw NeedsHostLengths("padded tensors need lengths that the host knows");
}

// (T): row of each token in a (B * max_seqlen, ...) tensor.
at::Tensor padded_rows(const PackedLayout& layout) {
  return layout.seq_id * layout.max_seqlen + layout.position;
}

std::vector<int64_t> with_leading(std::initializer_list<int64_t> leading, at::IntArrayRef rest) {
  std::vector<int64_t> sizes(leading);
  sizes.insert(sizes.end(), rest.begin(), rest.end());
  return sizes;
}

}  // namespace

PackedLayout make_layout(const std::vector<int64_t>& offsets, int64_t padded_length, at::Device device) {
  if (offsets.size() < 2 || offsets.front() != 0) {
    throw std::invalid_argument("offsets need a leading 0 and at least one sequence");
  }
  PackedLayout layout;
  layout.offsets = offsets;
  std::vector<int64_t> seq_id, position;
  seq_id.reserve(std::max<int64_t>(offsets.back(), 0));
  position.reserve(seq_id.capacity());
  for (int64_t b = 0; b < layout.batch(); ++b) {
    if (layout.seqlen(b) < 1) {
      std::ostringstream message;
      message << "offsets must increase: " << offsets[b] << " is followed by " << offsets[b + 1];
      throw std::invalid_argument(message.str());
    }
    layout.max_seqlen = std::max(layout.max_seqlen, layout.seqlen(b));
    for (int64_t i = 0; i < layout.seqlen(b); ++i) {
      seq_id.push_back(b);
      position.push_back(i);
    }
  }
  layout.padded_length = padded_length == 0 ? layout.max_seqlen : padded_length;
  if (layout.padded_length < layout.max_seqlen) {
    std::ostringstream message;
    message << "padded_length " << padded_length << " is less than the longest sequence, "
            << layout.max_seqlen;
    throw std::invalid_argument(message.str());
  }
  layout.cu_seqlens = to_device(offsets, device);
  layout.seq_id = to_device(seq_id, device);
  layout.position = to_device(position, device);
  return layout;
}

PackedLayout device_layout(const at::Tensor& cu_seqlens, const at::Tensor& seq_id, const at::Tensor& position,
                           int64_t max_seqlen, int64_t padded_length) {
  PackedLayout layout;
  layout.offsets.assign(static_cast<size_t>(cu_seqlens.size(0)), 0);
  layout.offsets.back() = seq_id.size(0);
  layout.cu_seqlens = cu_seqlens;
  layout.seq_id = seq_id;
  layout.position = position;
  layout.max_seqlen = max_seqlen;
  layout.padded_length = padded_length;
  layout.device_lengths = true;
  return layout;
}

at::Tensor to_padded(const at::Tensor& packed, const PackedLayout& layout) {
  check_host_lengths(layout);
  if (packed.size(0) != layout.total()) {
    std::ostringstream message;
    message << "a packed tensor of " << layout.total() << " tokens is wanted, this has " << packed.size(0);
    throw std::invalid_argument(message.str());
  }
  const auto rest = packed.sizes().slice(1);
  const auto padded_sizes = with_leading({layout.batch(), layout.max_seqlen}, rest);
  if (uniform(layout)) return packed.reshape(padded_sizes);
  const auto rows = at::zeros(with_leading({layout.batch() * layout.max_seqlen}, rest), packed.options());
  return rows.index_copy(0, padded_rows(layout), packed).view(padded_sizes);
}

at::Tensor to_packed(const at::Tensor& padded, const PackedLayout& layout) {
  check_host_lengths(layout);
  if (padded.size(0) != layout.batch() || padded.size(1) != layout.max_seqlen) {
    std::ostringstream message;
    message << "a padded tensor of (" << layout.batch() << ", " << layout.max_seqlen
            << ", ...) is wanted, this is " << padded.sizes();
    throw std::invalid_argument(message.str());
  }
  const auto rows =
      padded.reshape(with_leading({layout.batch() * layout.max_seqlen}, padded.sizes().slice(2)));
  return uniform(layout) ? rows : rows.index_select(0, padded_rows(layout));
}

}  // namespace hax::ops
