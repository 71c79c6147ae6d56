#include "lib/data/dataset.h"

#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/data/split_columns.h"

namespace hax {
namespace {

// Opens the file once its size and checksum are the manifest's.
Safetensors open_checked(const std::string& path, const SplitEntry& entry) {
  const char* remedy = "; generate the dataset again (hax gen-data) or copy it again from its source";
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) throw DataError(path + ": cannot be read (" + error.message() + ")" + remedy);
  if (static_cast<int64_t>(size) != entry.bytes) {
    throw DataError(path + ": " + std::to_string(size) + " bytes, the manifest says " +
                    std::to_string(entry.bytes) + remedy);
  }
  if (const std::string found = file_checksum(path); found != entry.checksum) {
    throw DataError(path + ": checksum " + found + ", the manifest says " + entry.checksum +
                    ": its bytes have changed" + remedy);
  }
  return Safetensors::open(path);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

}  // namespace

FileSource::FileSource(const std::string& folder, Split split, const Manifest& manifest, int threads)
    : path_(split_path(folder, split)),
      spec_(manifest.spec),
      examples_(manifest.split(split).examples),
      fingerprint_(manifest.split(split).checksum),
      file_(open_checked(path_, manifest.split(split))) {
  check_tensors();
  const auto column = [&](const char* name) { return file_.bytes(name).data(); };
  tokens_ = column("tokens");
  offsets_ = column("offsets");
  scored_ = column("scored");
  scored_offsets_ = column("scored_offsets");
  slices_ = column("slices");
  if (spec_.target_kind == TargetKind::label) targets_ = column("targets");
  check_contents(threads);
  if (offset(offsets_, examples_) != manifest.split(split).tokens) {
    fail("holds " + std::to_string(offset(offsets_, examples_)) + " tokens, the manifest says " +
         std::to_string(manifest.split(split).tokens));
  }
}

void FileSource::fail(const std::string& fault) const {
  throw DataError(path_ + ": " + fault +
                  "; it does not fit its manifest: generate the dataset again (hax gen-data)");
}

int64_t FileSource::offset(const std::byte* column, int64_t index) const {
  int64_t value;
  std::memcpy(&value, column + static_cast<size_t>(index) * sizeof(value), sizeof(value));
  return value;
}

void FileSource::check_tensors() const {
  const auto check = [&](const char* name, Dtype dtype, const std::vector<int64_t>& shape) {
    if (!file_.contains(name)) fail("has no tensor '" + std::string(name) + "'");
    const TensorInfo& info = file_.info(name);
    if (info.dtype != dtype || info.shape != shape) {
      fail("tensor '" + std::string(name) + "' is " + std::string(dtype_name(info.dtype)) + " " +
           shape_text(info.shape) + " instead of " + std::string(dtype_name(dtype)) + " " +
           shape_text(shape));
    }
  };
  const auto length = [&](const char* name) {
    return file_.contains(name) && file_.info(name).shape.size() == 1 ? file_.info(name).shape[0] : 0;
  };
  const int64_t scored = length("scored");
  check("tokens", token_dtype(spec_), {length("tokens")});
  check("offsets", Dtype::i64, {examples_ + 1});
  check("scored", position_dtype(spec_), {scored});
  check("scored_offsets", Dtype::i64, {examples_ + 1});
  check("slices", Dtype::i32, {examples_, static_cast<int64_t>(spec_.slice_columns.size())});
  const bool labels = spec_.target_kind == TargetKind::label;
  if (labels) check("targets", token_dtype(spec_), {scored});
  for (const TensorInfo& info : file_.tensors()) {
    if (info.name == "targets" ? !labels
                               : info.name != "tokens" && info.name != "offsets" && info.name != "scored" &&
                                     info.name != "scored_offsets" && info.name != "slices") {
      fail("has an unknown tensor '" + info.name + "'");
    }
  }
}

void FileSource::check_contents(int threads) const {
  // The offsets first: the other checks index with them.
  const auto check_offsets = [&](const char* name, const std::byte* column, int64_t total, int64_t longest) {
    if (offset(column, 0) != 0 || offset(column, examples_) != total) {
      fail(std::string(name) + " do not run from 0 to " + std::to_string(total));
    }
    for (int64_t i = 0; i < examples_; ++i) {
      const int64_t begin = offset(column, i);
      const int64_t end = offset(column, i + 1);
      // Subtraction is safe: begin was an end within [0, total] before, or is 0.
      if (end > total || end < begin || end - begin > longest) {
        fail(std::string(name) + " of example " + std::to_string(i) + " run from " + std::to_string(begin) +
             " to " + std::to_string(end) + ": they must ascend by at most " + std::to_string(longest) +
             " to " + std::to_string(total));
      }
    }
  };
  check_offsets("offsets", offsets_, file_.info("tokens").numel(), spec_.padded_tokens);
  check_offsets("scored_offsets", scored_offsets_, file_.info("scored").numel(), spec_.input_length());

  parallel_for(examples_, 1024, threads, [&](int64_t first, int64_t last) {
    Example current;
    for (int64_t i = first; i < last; ++i) {
      const auto length = static_cast<int64_t>(offset(offsets_, i + 1) - offset(offsets_, i));
      // Under next_token the answer stands behind the scored position, so the last token cannot be scored.
      const int64_t bound = spec_.target_kind == TargetKind::next_token ? length - 1 : length;
      const int64_t scored_begin = offset(scored_offsets_, i);
      current.scored.resize(static_cast<size_t>(offset(scored_offsets_, i + 1) - scored_begin));
      decode(scored_ + static_cast<size_t>(scored_begin) * dtype_size(position_dtype(spec_)),
             position_dtype(spec_), current.scored);
      int64_t previous = -1;
      for (int32_t position : current.scored) {
        if (position <= previous || position >= bound) {
          fail("scored position " + std::to_string(position) + " of example " + std::to_string(i) +
               " does not ascend inside [0, " + std::to_string(bound) + ")");
        }
        previous = position;
      }
      example(i, current);
      const auto check_tokens = [&](const char* what, const std::vector<int32_t>& values) {
        bool inside = true;
        for (int32_t value : values) inside &= value >= 0 && value < spec_.vocab_size;
        if (!inside) {
          fail(std::string(what) + " of example " + std::to_string(i) + " lie outside the vocabulary of " +
               std::to_string(spec_.vocab_size));
        }
      };
      check_tokens("tokens", current.tokens);
      check_tokens("targets", current.targets);
    }
  });
}

void FileSource::example(int64_t index, Example& result) const {
  if (index < 0 || index >= examples_) {
    throw std::invalid_argument("FileSource: example " + std::to_string(index) + " of " +
                                std::to_string(examples_));
  }
  const auto read = [](const std::byte* column, Dtype dtype, int64_t begin, int64_t end,
                       std::vector<int32_t>& out) {
    out.resize(static_cast<size_t>(end - begin));
    decode(column + static_cast<size_t>(begin) * dtype_size(dtype), dtype, out);
  };
  const int64_t scored_begin = offset(scored_offsets_, index);
  const int64_t scored_end = offset(scored_offsets_, index + 1);
  const auto columns = static_cast<int64_t>(spec_.slice_columns.size());
  read(tokens_, token_dtype(spec_), offset(offsets_, index), offset(offsets_, index + 1), result.tokens);
  read(scored_, position_dtype(spec_), scored_begin, scored_end, result.scored);
  read(slices_, Dtype::i32, index * columns, (index + 1) * columns, result.slices);
  if (spec_.target_kind == TargetKind::label) {
    read(targets_, token_dtype(spec_), scored_begin, scored_end, result.targets);
  } else {
    result.targets.resize(result.scored.size());
    for (size_t i = 0; i < result.scored.size(); ++i) {
      result.targets[i] = result.tokens[static_cast<size_t>(result.scored[i]) + 1];
    }
  }
}

void FileSource::append_example(int64_t index, Batch& batch) const {
  Example current;
  example(index, current);
  append(spec_, current, batch);
}

Dataset Dataset::open(const std::string& folder, int threads) {
  Dataset dataset;
  dataset.folder_ = folder;
  dataset.manifest_ = read_manifest(folder);
  for (Split which : kSplits) {
    dataset.splits_[static_cast<size_t>(which)] =
        std::make_shared<const FileSource>(folder, which, dataset.manifest_, threads);
  }
  return dataset;
}

}  // namespace hax
