#include "lib/eval/evaluate.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/data/batches.h"

namespace hax {
namespace {

constexpr size_t kBatchesTogether = 32;  // that a scorer may hold: bounds memory

// Whether both say of the same ids that they name the parts of a table.
bool same_slots(const DataSpec& a, const DataSpec& b) {
  return !a.slots.empty() && std::equal(a.slots.begin(), a.slots.end(), b.slots.begin(), b.slots.end(),
                                        [](const TokenSlot& ours, const TokenSlot& theirs) {
                                          return ours.name == theirs.name && ours.first == theirs.first;
                                        });
}

}  // namespace

MeanAndError mean_and_error(const std::vector<float>& values) {
  MeanAndError out;
  out.n = static_cast<int64_t>(values.size());
  if (out.n == 0) return out;
  for (float a : values) out.mean += a;
  out.mean /= static_cast<double>(out.n);
  if (out.n > 1) {
    double sum = 0.0;
    for (float a : values) sum += (a - out.mean) * (a - out.mean);
    out.standard_error = std::sqrt(sum / static_cast<double>(out.n - 1) / static_cast<double>(out.n));
  }
  return out;
}

void check_fits(const CheckpointInfo& model, const DataSpec& data, const std::string& data_name) {
  auto refuse = [&](const std::string& what) {
    throw DataError(data_name + ": " + what + "; evaluate on data made with the model's task and vocabulary");
  };
  if (data.vocab_size > model.data.vocab_size) {
    refuse("has a vocabulary of " + std::to_string(data.vocab_size) + " tokens, the model's has " +
           std::to_string(model.data.vocab_size));
  }
  if (data.task != model.data.task || data.target_kind != model.data.target_kind) {
    refuse("is the task '" + data.task + "', the model was trained on '" + model.data.task + "'");
  }
  for (const TokenSlot& ours : model.data.slots) {
    for (const TokenSlot& theirs : data.slots) {
      if (ours.name == theirs.name && ours.first != theirs.first) {
        refuse("has its ids of '" + theirs.name + "' from " + std::to_string(theirs.first) +
               " on, the model learned them from " + std::to_string(ours.first) + " on");
      }
    }
  }
  // Ids of a smaller vocabulary are ids of the model's only where both tell what they stand for.
  if (data.vocab_size < model.data.vocab_size && !same_slots(model.data, data)) {
    refuse("has a vocabulary of " + std::to_string(data.vocab_size) + " tokens, the model's has " +
           std::to_string(model.data.vocab_size) + ", and nothing tells that its ids mean the same");
  }
  if (model.config.model.mode == Statistics::paper && data.input_length() != model.data.input_length()) {
    refuse("has padded inputs of " + std::to_string(data.input_length()) +
           " tokens, the model was trained with " + std::to_string(model.data.input_length()) +
           ", which counts in the statistics of paper mode");
  }
}

std::string vocabulary_note(const std::string& name, int64_t of_model, int64_t of_data) {
  if (of_model == 0 || of_data == 0 || of_model == of_data) return "";
  return name + " was trained with a vocabulary of " + std::to_string(of_model) +
         " tokens; these data have " + std::to_string(of_data) + " of them, with the same meaning, and all " +
         std::to_string(of_model) + " compete for each answer.";
}

Evaluation evaluate(const LanguageModel& model, EvaluationDraws& draws, const ExampleSource& examples,
                    int64_t limit, int64_t batch_size, at::ScalarType compute,
                    const std::function<bool()>& stop, std::vector<int32_t>* predicted) {
  const auto scorer = make_scorer(model, draws, examples.spec(), batch_size, compute,
                                  /*with_predicted=*/predicted != nullptr);
  return evaluate(*scorer, examples, limit, batch_size, stop, predicted);
}

Evaluation evaluate(Scorer& scorer, const ExampleSource& examples, int64_t limit, int64_t batch_size,
                    const std::function<bool()>& stop, std::vector<int32_t>* predicted) {
  const at::InferenceMode inference;
  const int64_t n = limit > 0 ? std::min(limit, examples.size()) : examples.size();
  Evaluation out;
  double loss_sum = 0.0;
  std::vector<std::vector<int32_t>> cu_scored;  // of the batches that the scorer has
  const auto take = [&] {
    const auto done = scorer.drain();
    for (size_t i = 0; i < done.size(); ++i) {
      const auto& ends = cu_scored.at(i);
      const ScoredBatch& batch = done[i];
      loss_sum += batch.loss * static_cast<double>(ends.back());
      out.scored += ends.back();
      for (size_t b = 0; b + 1 < ends.size(); ++b) {
        const auto right =
            std::count(batch.correct.begin() + ends[b], batch.correct.begin() + ends[b + 1], 1);
        const int32_t asked = ends[b + 1] - ends[b];
        out.example_accuracy.push_back(asked > 0 ? static_cast<float>(right) / static_cast<float>(asked)
                                                 : 0.0f);
      }
      if (predicted != nullptr)
        predicted->insert(predicted->end(), batch.predicted.begin(), batch.predicted.end());
    }
    cu_scored.clear();
  };
  for (int64_t begin = 0; begin < n; begin += batch_size) {
    if (stop && stop()) break;
    const Batch batch = consecutive_batch(examples, begin, std::min(n, begin + batch_size));
    scorer.push(batch, static_cast<uint32_t>(begin / batch_size));
    cu_scored.push_back(batch.cu_scored);
    out.slices.insert(out.slices.end(), batch.slices.begin(), batch.slices.end());
    if (cu_scored.size() == kBatchesTogether) take();
  }
  take();
  out.loss = out.scored > 0 ? loss_sum / static_cast<double>(out.scored) : 0.0;
  return out;
}

}  // namespace hax
