// Wires a config to examples: dataset folders, or a task drawn on the fly.
#pragma once

#include <memory>

#include "lib/config/config.h"
#include "lib/data/example.h"

namespace hax {

struct TrainingSources {
  std::shared_ptr<const ExampleSource> train;
  std::shared_ptr<const ExampleSource> valid;
};

// `file`: both splits of data.path. `stream`: training examples of `task`, never one of the evaluation splits
// of data.path. Throws UsageError when data.path is missing, DataError when the folder is not sound or holds
// another task than the stream.
// Under `file` the config's `task` section becomes the dataset's, so that the run's config is true of its
// data.
TrainingSources open_training_sources(Config& config);

}  // namespace hax
