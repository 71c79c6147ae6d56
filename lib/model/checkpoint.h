// Checkpoints: one safetensors file that says everything a run needs to go on, or an evaluation to begin.
//
// Tensors: weights under their official names in the dtype that training keeps them in (fp32, or bf16 under
// train.precision: pure_bf16, so that a resume is exact); in training checkpoints `optimizer.exp_avg.NAME`
// and `optimizer.exp_avg_sq.NAME` beside each; under causal hashing `layers.I.mixer.hash_matrix`, the matrix
// that evaluation uses. Metadata: format, resolved config, step and the other fields of CheckpointInfo, and a
// checksum over all of it, which readers verify.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lib/config/config.h"
#include "lib/data/example.h"
#include "lib/model/language_model.h"

namespace hax {

struct CheckpointInfo {
  Config config;
  DataSpec data;                 // what the model was trained to read
  std::string data_fingerprint;  // of the training data
  int64_t step = 0;              // updates done
  int64_t tokens_seen = 0;       // real tokens of all batches
  double valid_accuracy = -1.0;  // at `step`; -1: not validated there
  double best_accuracy = -1.0;   // of the run so far
  int64_t best_step = 0;
  int64_t rewinds = 0;          // after divergence
  int64_t skipped_batches = 0;  // by all rewinds: update s reads batch s + skipped_batches
};

// First and second moments of Adam, flat like ParameterSet::flat().
struct OptimizerState {
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
};

// optimizer may be null: a checkpoint for evaluation alone.
void write_checkpoint(const std::string& path, const LanguageModel& model, const CheckpointInfo& info,
                      const OptimizerState* optimizer);

// The hash matrices that evaluation uses: stored ones under `causal`, fresh for each forward under `paper`.
class EvaluationDraws : public Draws {
 public:
  EvaluationDraws(const Config& config, at::Device device);               // from the run's seed
  EvaluationDraws(const Config& config, std::vector<at::Tensor> stored);  // from a checkpoint
  bool training() const override { return false; }
  at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const override;
  at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const override;
  void set_batch(uint32_t batch) { batch_ = batch; }  // names the forward under `paper`
  uint64_t seed() const { return seed_; }
  const std::vector<at::Tensor>& stored() const { return stored_; }  // `paper` has none

 private:
  Statistics mode_;
  uint64_t seed_;
  uint32_t batch_ = 0;
  std::vector<at::Tensor> stored_;
};

struct LoadedCheckpoint {
  CheckpointInfo info;
  std::unique_ptr<LanguageModel> model;
  std::unique_ptr<EvaluationDraws> draws;
  OptimizerState optimizer;  // undefined tensors when the file has none
};

// Throws DataError naming the file and what is missing, of another shape or not known.
CheckpointInfo read_checkpoint_info(const std::string& path);
LoadedCheckpoint read_checkpoint(const std::string& path, at::Device device);

}  // namespace hax
