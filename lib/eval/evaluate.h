// Accuracy and loss of a model on a set of examples (spec section 1.1): per example the fraction of scored
// positions whose argmax over the whole vocabulary is right, then the mean over examples.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/data/example.h"
#include "lib/eval/scorer.h"
#include "lib/model/checkpoint.h"

namespace hax {

struct Evaluation {
  std::vector<float> example_accuracy;  // (n)
  std::vector<int32_t> slices;          // (n, slice columns)
  double loss = 0.0;                    // cross-entropy, mean over all scored positions
  int64_t scored = 0;                   // how many those are
  int64_t size() const { return static_cast<int64_t>(example_accuracy.size()); }
};

struct MeanAndError {
  double mean = 0.0;
  double standard_error = 0.0;  // of the mean over examples; 0 for a single example
  int64_t n = 0;
};
MeanAndError mean_and_error(const std::vector<float>& values);
inline MeanAndError accuracy(const Evaluation& e) { return mean_and_error(e.example_accuracy); }

// Throws DataError when the examples do not fit what the model was trained to read: another vocabulary,
// another way of asking, or (in `paper` mode, where the padded length matters) another length. A smaller
// vocabulary fits where the token slots of both tell that the ids mean the same.
void check_fits(const CheckpointInfo& model, const DataSpec& data, const std::string& data_name);

// What a table says beside a number where the vocabularies of model and data differ; empty where they do not
// or one is not known (0).
std::string vocabulary_note(const std::string& name, int64_t of_model, int64_t of_data);

// The first `limit` examples (0: all) in batches of batch_size, without gradients. `stop` is asked before
// each batch; when it says true the result covers what was done. `predicted`, where given, gets the token
// that the model holds most likely at every scored position, appended in the order of examples and positions.
Evaluation evaluate(const LanguageModel& model, EvaluationDraws& draws, const ExampleSource& examples,
                    int64_t limit, int64_t batch_size, at::ScalarType compute,
                    const std::function<bool()>& stop = {}, std::vector<int32_t>* predicted = nullptr);
// The same by a scorer that is kept for further evaluations, in its batch size.
Evaluation evaluate(Scorer& scorer, const ExampleSource& examples, int64_t limit, int64_t batch_size,
                    const std::function<bool()>& stop, std::vector<int32_t>* predicted = nullptr);

}  // namespace hax
