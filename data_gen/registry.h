// From names and parameters to tasks: the one place that knows every task.
#pragma once

#include <memory>

#include "data_gen/task.h"
#include "lib/config/config.h"
#include "lib/data/manifest.h"

namespace hax {

std::unique_ptr<Task> make_task(const TaskConfig& config);  // throws UsageError naming the key
// The task that a dataset was made by. Throws DataError naming the folder when no task fits the manifest.
std::unique_ptr<Task> make_task(const Manifest& manifest, const std::string& folder);
// Its parameters as a config's `task` section.
TaskConfig task_config(const Manifest& manifest, const std::string& folder);

}  // namespace hax
