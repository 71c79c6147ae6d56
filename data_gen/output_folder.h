// The folder that a dataset is written into: taken only when nothing of the user's can be lost there.
//
// A marker file stands in the folder from before the first write until the manifest is in place. It is also
// the lock of the generation, and names its process and host. A folder with a marker that nobody holds and
// without a manifest is an interrupted generation, which is cleared and begun again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/base/file_lock.h"
#include "lib/data/manifest.h"
#include "lib/data/split_columns.h"

namespace hax {

class OutputFolder {
 public:
  // Makes the folder, or takes an empty one, or clears an interrupted generation. Throws UsageError naming
  // what is in the way: a dataset, another process that is generating one, or files that no generation wrote.
  explicit OutputFolder(const std::string& path);
  // Without publish(): removes the files written here, and the folder if it was made here. Nothing is removed
  // where the folder or the marker was removed or replaced meanwhile: what lies there is somebody else's.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // Both throw RuntimeError, also where the folder or the marker was removed or replaced meanwhile.
  SplitEntry write(const SplitColumns& columns, Split split);
  void publish(const Manifest& manifest);  // the dataset is whole

 private:
  void take();
  void require_own() const;

  std::string path_;
  std::unique_ptr<FileLock> lock_;
  std::vector<std::string> written_;
  bool made_ = false;
  bool published_ = false;
};

}  // namespace hax
