// The official text form of joint recall (HAX, scripts/create_dataset.py), read and written byte for byte.
//
//   STEM_{train,valid,test}_{inputs,mask}.txt   STEM = max_n_context_{C}_max_n_key_{K}_seed_{S}
//
// One example a line, integers separated by single spaces, every line 2 C (2 K + 1) + 2 long: tokens with
// PAD (3) behind them, and a mask that is 1 at the scored positions. The last line ends with a newline; on
// import it may lack one, and lines may end with CR LF.
#pragma once

#include <string>

namespace hax {

struct TextImport {
  std::string folder;           // with the six text files
  std::string stem;             // empty: the only one there
  std::string out;              // dataset folder, new or empty
  int threads = 0;              // 0: all cores
  int n_value = 16;             // not told by the files
  std::string program_version;  // recorded in the manifest
};

// Makes a dataset of the six files; the smallest sizes found become the task's minima, the stem's seed the
// dataset's. Throws DataError naming file and line when a line is no joint-recall example, UsageError when
// the folder holds no stem or several. Nothing is left in `out` then.
void import_text(const TextImport& options);

// Writes a joint-recall dataset as six text files into `out`. Throws UsageError for other tasks and when
// one of the files exists, DataError when the dataset is damaged.
void export_text(const std::string& dataset, const std::string& out, int threads);

}  // namespace hax
