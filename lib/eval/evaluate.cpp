#include "lib/eval/evaluate.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/data/batches.h"
#include "lib/ops/cross_entropy.h"

namespace hax {

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
  if (model.config.model.mode == Statistics::paper && data.input_length() != model.data.input_length()) {
    refuse("has padded inputs of " + std::to_string(data.input_length()) +
           " tokens, the model was trained with " + std::to_string(model.data.input_length()) +
           ", which counts in the statistics of paper mode");
  }
}

Evaluation evaluate(const LanguageModel& model, EvaluationDraws& draws, const ExampleSource& examples,
                    int64_t limit, int64_t batch_size, at::ScalarType compute,
                    const std::function<bool()>& stop, std::vector<int32_t>* predicted) {
  const at::InferenceMode inference;
  const int64_t n = limit > 0 ? std::min(limit, examples.size()) : examples.size();
  Evaluation out;
  double loss_sum = 0.0;
  for (int64_t begin = 0; begin < n; begin += batch_size) {
    if (stop && stop()) break;
    const Batch batch = consecutive_batch(examples, begin, std::min(n, begin + batch_size));
    draws.set_batch(static_cast<uint32_t>(begin / batch_size));
    const ModelInput input = to_device(batch, model.device());
    const at::Tensor logits = model.forward(input, draws, compute).logits;
    const auto result = ops::cross_entropy(logits, input.targets);
    const auto correct = result.correct.to(at::kCPU).contiguous();
    const bool* right = correct.data_ptr<bool>();
    const auto scored = static_cast<int64_t>(batch.scored.size());
    if (predicted != nullptr) {
      const auto tokens = at::argmax(logits, 1).to(at::kCPU, at::kInt).contiguous();
      predicted->insert(predicted->end(), tokens.data_ptr<int32_t>(), tokens.data_ptr<int32_t>() + scored);
    }
    loss_sum += result.loss.item<double>() * static_cast<double>(scored);
    out.scored += scored;
    for (int64_t b = 0; b < batch.size(); ++b) {
      const int32_t first = batch.cu_scored[b], last = batch.cu_scored[b + 1];
      const auto hits = std::count(right + first, right + last, true);
      out.example_accuracy.push_back(
          last > first ? static_cast<float>(hits) / static_cast<float>(last - first) : 0.0f);
    }
    out.slices.insert(out.slices.end(), batch.slices.begin(), batch.slices.end());
  }
  out.loss = out.scored > 0 ? loss_sum / static_cast<double>(out.scored) : 0.0;
  return out;
}

}  // namespace hax
