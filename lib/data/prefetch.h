// The batches of a sequence, made ahead of their use by threads of their own.
#pragma once

#include <deque>
#include <future>

#include "lib/data/batches.h"

namespace hax {

class BatchPrefetch {
 public:
  // Batches first, first + 1, ..., `depth` of them under way; 0: each is made when it is asked for. `batches`
  // must outlive this.
  BatchPrefetch(const BatchSequence& batches, int64_t first, int64_t depth)
      : batches_(batches), next_(first), depth_(depth) {}

  Batch next() {
    while (static_cast<int64_t>(ahead_.size()) < depth_) {
      const int64_t step = next_ + static_cast<int64_t>(ahead_.size());
      ahead_.push_back(std::async(std::launch::async, [this, step] { return batches_.batch(step); }));
    }
    if (ahead_.empty()) return batches_.batch(next_++);
    Batch batch = ahead_.front().get();
    ahead_.pop_front();
    ++next_;
    return batch;
  }

 private:
  const BatchSequence& batches_;
  int64_t next_;  // of the batch that next() returns
  const int64_t depth_;
  std::deque<std::future<Batch>> ahead_;
};

}  // namespace hax
