// Batches scored one after another: what is right at every scored position, and the loss.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/data/example.h"
#include "lib/model/checkpoint.h"

namespace hax {

struct ScoredBatch {
  std::vector<uint8_t> correct;    // (scored)
  std::vector<int32_t> predicted;  // (scored): argmax over the whole vocabulary; empty unless asked for
  double loss = 0.0;               // mean over scored positions
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  // Batch number `index` of an evaluation: it names the forward under `paper`.
  virtual void push(const Batch& batch, uint32_t index) = 0;
  // Waits; the batches since the last drain, in order.
  virtual std::vector<ScoredBatch> drain() = 0;
};

// On a GPU and in bf16: forwards of batches of `batch_size` captured as CUDA graphs, one for each rounded
// size; elsewhere, for shorter batches and for models with an op that cannot be captured: op by op. Reads the
// weights as they are at each push. Model and draws must outlive it.
std::unique_ptr<Scorer> make_scorer(const LanguageModel& model, EvaluationDraws& draws, const DataSpec& data,
                                    int64_t batch_size, at::ScalarType compute, bool with_predicted);

}  // namespace hax
