// The parser is a state machine on nlohmann-json's SAX events. No document is built: duplicate keys stay
// visible, integers exact, and nesting costs nothing.
#include "lib/base/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "lib/base/error.h"

namespace hax {
namespace {

struct DtypeRow {
  Dtype dtype;
  size_t size;
  std::string_view name;
};

constexpr std::array dtype_rows = {
    DtypeRow{Dtype::f64, 8, "F64"},         DtypeRow{Dtype::f32, 4, "F32"},
    DtypeRow{Dtype::f16, 2, "F16"},         DtypeRow{Dtype::bf16, 2, "BF16"},
    DtypeRow{Dtype::i64, 8, "I64"},         DtypeRow{Dtype::i32, 4, "I32"},
    DtypeRow{Dtype::i16, 2, "I16"},         DtypeRow{Dtype::i8, 1, "I8"},
    DtypeRow{Dtype::u64, 8, "U64"},         DtypeRow{Dtype::u32, 4, "U32"},
    DtypeRow{Dtype::u16, 2, "U16"},         DtypeRow{Dtype::u8, 1, "U8"},
    DtypeRow{Dtype::boolean, 1, "BOOL"},    DtypeRow{Dtype::f8_e4m3, 1, "F8_E4M3"},
    DtypeRow{Dtype::f8_e5m2, 1, "F8_E5M2"},
};

const DtypeRow& row_of(Dtype dtype) {
  return *std::find_if(dtype_rows.begin(), dtype_rows.end(),
                       [dtype](const DtypeRow& row) { return row.dtype == dtype; });
}

}  // namespace

size_t dtype_size(Dtype dtype) { return row_of(dtype).size; }
std::string_view dtype_name(Dtype dtype) { return row_of(dtype).name; }

namespace safetensors {
namespace {

[[noreturn]] void fail(const std::string& fault) { throw DataError(fault); }

std::string range_text(const TensorInfo& tensor) {
  return shape_text({static_cast<int64_t>(tensor.begin), static_cast<int64_t>(tensor.end)});
}

Dtype parse_dtype(std::string_view name, const std::string& tensor) {
  std::string known;
  for (const DtypeRow& row : dtype_rows) {
    if (row.name == name) return row.dtype;
    known.append(known.empty() ? "" : ", ").append(row.name);
  }
  fail(tensor + ": unknown dtype " + in_quotes(name) + "; known are " + known);
}

class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;

  bool null() override { return other("null"); }
  bool boolean(bool value) override { return other(value ? "true" : "false"); }
  bool number_integer(int64_t value) override { return other(std::to_string(value)); }
  bool number_float(double, const std::string& text) override { return other(text.substr(0, 40)); }
  bool binary(binary_t&) override { return other("binary"); }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) return other(std::to_string(value));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail(tensor() + ": " + field_ + " holds " + std::to_string(value) + ", more than 2^63 - 1");
    }
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::metadata) {
      metadata[field_] = text;
    } else if (place_ == Place::entry && field_ == "dtype") {
      entry_.dtype = parse_dtype(text, tensor());
    } else {
      return other("the string " + in_quotes(text));
    }
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = entry_.name == metadata_key ? Place::metadata : Place::entry;
      fields_.clear();
    } else {
      return start_nested("an object");
    }
    return true;
  }

  bool key(std::string& name) override {
    if (place_ == Place::top) {
      if (!names_.insert(name).second) fail("the name " + in_quotes(name) + " appears twice");
      entry_ = TensorInfo{};
      entry_.name = name;
    } else if (place_ != Place::ignored) {
      if (!fields_.insert(name).second) {
        fail((place_ == Place::metadata ? "__metadata__" : tensor()) + ": the field " + in_quotes(name) +
             " appears twice");
      }
      field_ = name;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::ignored) return end_ignored();
    if (place_ == Place::entry) finish_entry();
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::entry || (field_ != "shape" && field_ != "data_offsets")) {
      return start_nested("an array");
    }
    place_ = field_ == "shape" ? Place::shape : Place::offsets;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    if (place_ == Place::ignored) return end_ignored();
    if (place_ == Place::shape) {
      entry_.shape = numbers_;
    } else {
      if (numbers_.size() != 2) {
        fail(tensor() + ": data_offsets holds " + std::to_string(numbers_.size()) + " numbers, not 2");
      }
      entry_.begin = static_cast<size_t>(numbers_[0]);
      entry_.end = static_cast<size_t>(numbers_[1]);
    }
    place_ = Place::entry;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string what = error.what();
    what.erase(0, what.find("] ") + 2);       // the library's own error number
    if (what.size() > 300) what.resize(300);  // it quotes what it read last, however long
    fail("the header is not valid JSON: " + what);
  }

 private:
  enum class Place { outside, top, metadata, entry, shape, offsets, ignored };

  static constexpr int max_ignored_depth = 64;

  std::string tensor() const { return "tensor " + in_quotes(entry_.name); }

  // A value at a place that does not take its kind.
  bool other(const std::string& found) {
    switch (place_) {
      case Place::outside:
        fail("the header is " + found + ", not an object");
      case Place::top:
        if (entry_.name == metadata_key) fail("__metadata__ is " + found + ", not an object");
        fail(tensor() + " is " + found + ", not an object");
      case Place::metadata:
        fail("__metadata__: " + in_quotes(field_) + " is " + found + ", not a string");
      case Place::shape:
      case Place::offsets:
        fail(tensor() + ": " + field_ + " holds " + found + ", not an integer of 0 .. 2^63 - 1");
      case Place::entry:
        if (field_ == "dtype") fail(tensor() + ": dtype is " + found + ", not a string");
        if (field_ == "shape" || field_ == "data_offsets") {
          fail(tensor() + ": " + field_ + " is " + found + ", not an array");
        }
        break;
      case Place::ignored:
        break;
    }
    return true;
  }

  bool start_nested(const std::string& found) {
    other(found);
    place_ = Place::ignored;
    if (++ignored_depth_ > max_ignored_depth) {
      fail(tensor() + ": the unknown field " + in_quotes(field_) + " is nested deeper than " +
           std::to_string(max_ignored_depth));
    }
    return true;
  }

  bool end_ignored() {
    if (--ignored_depth_ == 0) place_ = Place::entry;
    return true;
  }

  void finish_entry() {
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (!fields_.contains(field)) fail(tensor() + ": " + field + " is missing");
    }
    const std::string range = range_text(entry_);
    if (entry_.end < entry_.begin) fail(tensor() + ": data_offsets " + range + " end before they begin");
    const size_t rank = entry_.shape.size();
    const std::string shape = rank <= 16 ? shape_text(entry_.shape) : "of rank " + std::to_string(rank);
    const std::string kind = std::string(dtype_name(entry_.dtype)) + " " + shape;
    const std::optional<uint64_t> bytes = tensor_bytes(entry_.dtype, entry_.shape);
    if (!bytes) fail(tensor() + ": the size of " + kind + " overflows 64 bits");
    if (*bytes != entry_.end - entry_.begin) {
      fail(tensor() + ": " + kind + " takes " + std::to_string(*bytes) + " bytes, but data_offsets " + range +
           " hold " + std::to_string(entry_.end - entry_.begin));
    }
    tensors.push_back(std::move(entry_));
  }

  Place place_ = Place::outside;
  int ignored_depth_ = 0;
  std::set<std::string, std::less<>> names_;   // of the top level
  std::set<std::string, std::less<>> fields_;  // of the entry or the metadata
  std::string field_;                          // whose value comes next
  TensorInfo entry_;
  std::vector<int64_t> numbers_;
};

// Every byte of the data section belongs to exactly one tensor.
void check_tiling(const std::vector<TensorInfo>& tensors, uint64_t data_bytes) {
  uint64_t covered = 0;
  for (const TensorInfo& tensor : tensors) {
    const auto fail_here = [&](const std::string& fault) {
      fail("tensor " + in_quotes(tensor.name) + " at data_offsets " + range_text(tensor) + " " + fault);
    };
    const std::string size = std::to_string(data_bytes) + " data bytes of the file";
    if (tensor.begin < covered) fail_here("overlaps the tensor that ends at byte " + std::to_string(covered));
    if (tensor.begin > data_bytes) fail_here("lies beyond the " + size);
    if (tensor.begin > covered)
      fail_here("leaves a hole: no tensor holds the bytes from " + std::to_string(covered));
    if (tensor.end > data_bytes) fail_here("ends beyond the " + size);
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    fail("the file has " + std::to_string(data_bytes - covered) + " bytes after the last tensor's data");
  }
}

}  // namespace

Header parse_header(std::string_view json, uint64_t data_bytes) {
  if (json.empty()) fail("the header is empty");
  if (const size_t nul = json.find('\0'); nul != json.npos) {  // nlohmann-json would take it for the end
    fail("the header holds a NUL byte at its byte " + std::to_string(nul));
  }
  if (json.front() == ' ' || json.front() == '\t' || json.front() == '\n' || json.front() == '\r') {
    fail("the header begins with white space, not with '{'");
  }
  if (json.starts_with("\xEF\xBB\xBF")) fail("the header begins with a byte order mark, not with '{'");
  HeaderReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  std::stable_sort(reader.tensors.begin(), reader.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  check_tiling(reader.tensors, data_bytes);
  return {std::move(reader.tensors), std::move(reader.metadata)};
}

std::optional<uint64_t> tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape) {
  uint64_t bytes = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) return std::nullopt;
  }
  if (__builtin_mul_overflow(bytes, uint64_t{dtype_size(dtype)}, &bytes)) return std::nullopt;
  return bytes;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ',';
    text += std::to_string(size);
  }
  text += ']';
  return text;
}

std::string in_quotes(std::string_view name) {
  constexpr size_t shown = 120;
  const bool long_name = name.size() > shown;
  const std::string text = long_name ? std::string(name.substr(0, shown / 2)) + "..." +
                                           std::string(name.substr(name.size() - shown / 2))
                                     : std::string(name);
  // A cut through a character leaves bytes that are not UTF-8: the replacement character stands for them.
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace safetensors
}  // namespace hax
