// The folder that a dataset is written into: taken only when nothing of the user's can be lost there.
//
// A marker file stands in the folder from the first write until the manifest is in place. A folder with a
// marker and without a manifest holds an interrupted generation, which is cleared and begun again.
#pragma once

#include <string>

namespace hax {

class OutputFolder {
 public:
  // Makes the folder, or takes an empty one, or clears an interrupted generation. Throws UsageError naming
  // what is in the way: a dataset, or files that no generation wrote.
  explicit OutputFolder(const std::string& path);
  // Without publish(): removes the files written, and the folder if it was made here.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  void publish();  // once the manifest is written: the dataset is whole

 private:
  std::string path_;
  bool made_ = false;
  bool published_ = false;
};

}  // namespace hax
