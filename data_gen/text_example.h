// One joint-recall example in the official text form: a line of tokens and a line of its mask.
#pragma once

#include <string>

#include "data_gen/joint_recall.h"

namespace hax {

// Which of the two lines is at fault, and how; no text: neither.
struct TextFault {
  bool in_mask = false;
  std::string text;
};

// Reads the lines, their line ends removed. Each holds the task's padded_tokens integers with one blank
// between, those of the mask 0 or 1; together they must be an example that the task could have drawn.
TextFault parse_text_example(const JointRecall& task, const std::string& inputs, const std::string& mask,
                             Example& result);

}  // namespace hax
