#include "data_gen/text.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <vector>

#include "data_gen/joint_recall.h"
#include "data_gen/output_folder.h"
#include "data_gen/registry.h"
#include "data_gen/text_example.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/parallel.h"
#include "lib/data/dataset.h"
#include "lib/data/split_columns.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 4096;  // lines held in memory

std::string text_path(const std::string& folder, const std::string& stem, Split split, const char* what) {
  return (fs::path(folder) / (stem + "_" + std::string(split_name(split)) + "_" + what + ".txt")).string();
}

int thread_count(int threads) { return threads > 0 ? threads : hardware_threads(); }

struct Stem {
  std::string text;
  int64_t n_context_max = 0;
  int64_t n_key_max = 0;
  int64_t seed = 0;
};

Stem find_stem(const TextImport& options) {
  static const std::regex pattern(
      "(max_n_context_(\\d{1,4})_max_n_key_(\\d{1,4})_seed_(\\d{1,18}))_(?:train|valid|test)_(?:inputs|mask)"
      "\\.txt");
  if (!fs::is_directory(options.folder)) throw UsageError(options.folder + ": no such folder of text files");
  std::vector<Stem> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(options.folder)) {
    const std::string name = entry.path().filename().string();
    std::smatch match;
    if (!std::regex_match(name, match, pattern)) continue;
    const Stem stem = {match[1], std::stoll(match[2]), std::stoll(match[3]), std::stoll(match[4])};
    const bool known =
        std::any_of(found.begin(), found.end(), [&](const Stem& s) { return s.text == stem.text; });
    if (!known && (options.stem.empty() || options.stem == stem.text)) found.push_back(stem);
  }
  if (found.size() == 1) return found[0];
  const std::string form = "max_n_context_{C}_max_n_key_{K}_seed_{S}_{train,valid,test}_{inputs,mask}.txt";
  if (found.empty()) {
    throw UsageError(options.folder + ": no files named " +
                     (options.stem.empty() ? form : options.stem + "_..."));
  }
  throw UsageError(options.folder + ": holds several sets of text files, e.g. " + found[0].text + " and " +
                   found[1].text + "; name one");
}

// A text file read line by line.
class Lines {
 public:
  explicit Lines(const std::string& path) : path_(path) {
    const char* remedy = "; the six text files belong together, copy them again from their source";
    std::error_code error;  // opening a pipe would wait for its writer
    const bool regular = fs::is_regular_file(path, error);
    if (!error && !regular) throw DataError(path + ": is not a regular file" + remedy);
    file_.open(path, std::ios::binary);
    if (!file_) throw DataError(path + ": cannot be opened" + remedy);
  }
  // Up to kBlock further lines, line ends removed.
  std::vector<std::string> next() {
    std::vector<std::string> lines;
    std::string line;
    while (lines.size() < kBlock && std::getline(file_, line)) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      lines.push_back(line);
    }
    if (file_.bad()) throw DataError(path_ + ": reading failed");
    return lines;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::ifstream file_;
};

void import_split(const JointRecall& task, Lines inputs, Lines masks, int threads, SplitColumns& columns,
                  JointRecallConfig& smallest) {
  int64_t line = 0;
  while (true) {
    const std::vector<std::string> input_lines = inputs.next();
    const std::vector<std::string> mask_lines = masks.next();
    const size_t count = std::min(input_lines.size(), mask_lines.size());
    std::vector<Example> examples(count);
    std::vector<TextFault> faults(count);
    parallel_for(static_cast<int64_t>(count), 64, threads, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        faults[i] = parse_text_example(task, input_lines[i], mask_lines[i], examples[i]);
      }
    });
    for (size_t i = 0; i < count; ++i) {
      if (!faults[i].text.empty()) {
        throw DataError((faults[i].in_mask ? masks : inputs).path() + ":" + std::to_string(line + 1 + i) +
                        ": " + faults[i].text);
      }
      smallest.n_context_min = std::min<int64_t>(smallest.n_context_min, examples[i].slices[0]);
      smallest.n_key_min = std::min<int64_t>(smallest.n_key_min, examples[i].slices[1]);
    }
    line += static_cast<int64_t>(count);
    if (input_lines.size() != mask_lines.size()) {
      const bool inputs_longer = input_lines.size() > mask_lines.size();
      throw DataError((inputs_longer ? masks : inputs).path() + ": ends after line " + std::to_string(line) +
                      ", but " + (inputs_longer ? inputs : masks).path() +
                      " has more lines: each example needs one in both");
    }
    if (count == 0) return;
    columns.append(examples, threads);
  }
}

}  // namespace

void import_text(const TextImport& options) {
  const Stem stem = find_stem(options);
  JointRecallConfig config;
  config.n_context_min = 1;
  config.n_key_min = 1;
  config.n_context_max = stem.n_context_max;
  config.n_key_max = stem.n_key_max;
  config.n_value = options.n_value;
  const JointRecall task(config);
  const int threads = thread_count(options.threads);

  OutputFolder folder(options.out);
  Manifest manifest;
  manifest.spec = task.spec();
  manifest.origin = "imported";
  manifest.program_version = options.program_version;
  manifest.seed = stem.seed;
  JointRecallConfig smallest = task.config();
  smallest.n_context_min = smallest.n_context_max;
  smallest.n_key_min = smallest.n_key_max;
  for (Split split : kSplits) {
    SplitColumns columns(task.spec(), 0);
    import_split(task, Lines(text_path(options.folder, stem.text, split, "inputs")),
                 Lines(text_path(options.folder, stem.text, split, "mask")), threads, columns, smallest);
    manifest.split(split) = folder.write(columns, split);
  }
  manifest.parameters = JointRecall(smallest).parameters();
  folder.publish(manifest);
}

void export_text(const std::string& dataset_folder, const std::string& out, int threads) {
  threads = thread_count(threads);
  const Dataset dataset = Dataset::open(dataset_folder, threads);
  const std::unique_ptr<Task> made = make_task(dataset.manifest(), dataset_folder);
  const auto* task = dynamic_cast<const JointRecall*>(made.get());
  if (task == nullptr) {
    throw UsageError(dataset_folder + ": holds " + dataset.spec().task +
                     "; the official text form exists for joint_recall alone");
  }
  const std::string stem = "max_n_context_" + std::to_string(task->config().n_context_max) + "_max_n_key_" +
                           std::to_string(task->config().n_key_max) + "_seed_" +
                           std::to_string(dataset.manifest().seed);
  make_directories(out);
  remove_stale_temporaries(out);
  for (Split split : kSplits) {
    for (const char* what : {"inputs", "mask"}) {
      const std::string path = text_path(out, stem, split, what);
      if (fs::exists(path)) throw UsageError(path + ": exists already; name another folder, or remove it");
    }
  }

  std::vector<std::string> words(static_cast<size_t>(dataset.spec().vocab_size));
  for (size_t token = 0; token < words.size(); ++token) words[token] = std::to_string(token);
  const auto length = static_cast<size_t>(dataset.spec().padded_tokens);
  for (Split split : kSplits) {
    const FileSource& source = dataset.split(split);
    AtomicFile inputs(text_path(out, stem, split, "inputs"));
    AtomicFile masks(text_path(out, stem, split, "mask"));
    for (int64_t first = 0; first < source.size(); first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, source.size() - first);
      std::vector<std::string> lines(static_cast<size_t>(count));
      std::vector<std::string> mask_lines(lines.size());
      parallel_for(count, 64, threads, [&](int64_t begin, int64_t end) {
        Example example;
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
          source.example(first + static_cast<int64_t>(i), example);
          example.tokens.resize(length, JointRecall::kPad);
          for (size_t position = 0; position < length; ++position) {
            lines[i] += words[static_cast<size_t>(example.tokens[position])];
            lines[i] += position + 1 < length ? ' ' : '\n';
          }
          mask_lines[i].resize(2 * length, ' ');
          for (size_t position = 0; position < length; ++position) mask_lines[i][2 * position] = '0';
          for (int32_t position : example.scored) mask_lines[i][2 * static_cast<size_t>(position)] = '1';
          mask_lines[i].back() = '\n';
        }
      });
      for (size_t i = 0; i < lines.size(); ++i) {
        inputs.write(lines[i]);
        masks.write(mask_lines[i]);
      }
    }
    inputs.commit();
    masks.commit();
  }
}

}  // namespace hax
