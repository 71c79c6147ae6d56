#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "lib/model/device_batches.h"

namespace hax {
namespace {

constexpr int64_t kTokensTogether = 2048, kScoredTogether = 1024;  // capacities are multiples

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

DeviceBatches::DeviceBatches(int64_t batch_size, const DataSpec& data, c10::cuda::CUDAStream stream)
    : data_(data),
      stream_(stream),
      copies_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, stream.device_index())) {
  const auto longs = at::TensorOptions().dtype(at::kLong).device(stream.device());
  const int64_t rows = round_up(batch_size * data.input_length(), kTokensTogether);
  const auto words = [&](int64_t n) { return at::zeros({n}, longs); };
  step_ = words(1);
  lr_ = at::zeros({1}, longs.dtype(at::kFloat));
  cu_seqlens_ = words(batch_size + 1);
  cu_scored_ = words(batch_size + 1);
  for (at::Tensor* column : {&tokens_, &seq_id_, &position_, &scored_, &targets_}) *column = words(rows);
  const int64_t most = ops::cuda::StepShape{batch_size, rows, rows}.words();
  words_ = at::zeros({most}, longs.dtype(at::kInt));
  for (auto& staged : staging_) {
    staged.words = at::zeros({most}, at::TensorOptions().dtype(at::kInt).pinned_memory(true));
    staged.arrived = at::zeros_like(words_);
  }
  c10::cuda::getCurrentCUDAStream(stream.device_index()).synchronize();
}

ops::cuda::StepShape DeviceBatches::shape_of(const Batch& batch) const {
  const auto most = tokens_.size(0);
  const auto capacity = [&](size_t n, int64_t multiple) {
    return std::min(most, round_up(std::max<int64_t>(static_cast<int64_t>(n), 1), multiple));
  };
  return {batch.size(), capacity(batch.tokens.size(), kTokensTogether),
          capacity(batch.scored.size(), kScoredTogether)};
}

void DeviceBatches::bring(const Batch& batch, int64_t step, float lr, const ops::cuda::StepShape& shape) {
  if (shape.batch + 1 > cu_seqlens_.size(0) || batch.tokens.size() > static_cast<size_t>(shape.rows)) {
    throw std::invalid_argument("DeviceBatches: a batch of " + std::to_string(shape.batch) + " sequences, " +
                                std::to_string(batch.tokens.size()) + " tokens, where there is room for " +
                                std::to_string(cu_seqlens_.size(0) - 1) + " and " +
                                std::to_string(tokens_.size(0)));
  }
  Staged& staged = staging_[next_++ % kStaging];
  if (staged.in_use) staged.copied.synchronize();
  int32_t* word = staged.words.mutable_data_ptr<int32_t>();
  word[0] = static_cast<int32_t>(step & 0xffffffff);
  word[1] = static_cast<int32_t>(step >> 32);
  std::memcpy(word + 2, &lr, sizeof lr);
  word[3] = 0;
  int32_t* to = word + 4;
  const auto put = [&](const std::vector<int32_t>& values, int64_t room) {
    std::copy(values.begin(), values.end(), to);
    to += room;
  };
  put(batch.cu_seqlens, shape.batch + 1);
  put(batch.cu_scored, shape.batch + 1);
  put(batch.tokens, shape.rows);
  put(batch.scored, shape.scored_rows);
  put(batch.targets, shape.scored_rows);
  const auto used = [&](const at::Tensor& words) { return words.narrow(0, 0, shape.words()); };
  {
    const c10::cuda::CUDAStreamGuard guard(copies_);
    if (staged.in_use) staged.read.block(copies_);
    used(staged.arrived).copy_(used(staged.words), /*non_blocking=*/true);
    staged.copied.record(copies_);
  }
  const c10::cuda::CUDAStreamGuard guard(stream_);
  staged.copied.block(stream_);
  used(words_).copy_(used(staged.arrived));
  staged.read.record(stream_);
  staged.in_use = true;
}

ModelInput DeviceBatches::unpack(const ops::cuda::StepShape& shape) {
  const auto column = [](const at::Tensor& x, int64_t n) { return x.narrow(0, 0, n); };
  const auto data = [](const at::Tensor& x) { return x.mutable_data_ptr<int64_t>(); };
  ops::cuda::unpack_step(shape, words_.const_data_ptr<int32_t>(),
                         {data(step_), lr_.mutable_data_ptr<float>(), data(cu_seqlens_), data(cu_scored_),
                          data(tokens_), data(seq_id_), data(position_), data(scored_), data(targets_)},
                         stream_.stream());
  ModelInput input;
  input.tokens = column(tokens_, shape.rows);
  input.scored = column(scored_, shape.scored_rows);
  input.targets = column(targets_, shape.scored_rows);
  input.layout = ops::device_layout(cu_seqlens_, column(seq_id_, shape.rows), column(position_, shape.rows),
                                    std::min(data_.input_length(), shape.rows), data_.input_length());
  return input;
}

}  // namespace hax
