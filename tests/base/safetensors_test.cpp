// The reader against files that the official package refuses, reads, and reads although it might refuse.
#include "lib/base/safetensors.h"

#include <cstring>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax {
namespace {

using test::contains;
using test::golden_folder;
using test::message_of;
using test::names_in;
using test::slurp;
using test::spill;
using test::TemporaryFolder;

using Floats = std::vector<float>;
using Shape = std::vector<int64_t>;

std::string good(const std::string& name) {
  return golden_folder() + "/safetensors_good/" + name + ".safetensors";
}

// The names in `folder` are exactly those that a table of this file speaks of.
void check_listed(const std::string& folder, const std::set<std::string>& listed) {
  std::set<std::string> present;
  for (const std::string& name : names_in(golden_folder() + "/" + folder)) {
    present.insert(name.substr(0, name.find(".safetensors")));
  }
  CHECK(present == listed);
}

// A file of this header and so many zero bytes.
std::string with_header(const std::string& json, size_t data_bytes = 0) {
  const uint64_t length = json.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + json + std::string(data_bytes, '\0');
}

// The fault that the reader finds in a file of this header; "" when it reads.
std::string fault_of(const std::string& json, size_t data_bytes) {
  const TemporaryFolder folder;
  spill(folder.file("file"), with_header(json, data_bytes));
  return message_of<DataError>([&] { Safetensors::open(folder.file("file")); });
}

// Bits, since NaNs differ from themselves and raw dtypes have no type of ours.
std::vector<int> raw(const Safetensors& file, std::string_view name) {
  std::vector<int> bytes;
  for (const std::byte byte : file.bytes(name)) bytes.push_back(std::to_integer<int>(byte));
  return bytes;
}

TEST_CASE("every malformed file is refused for its own fault", "[golden]") {
  const std::map<std::string, std::string> faults = {
      {"data_truncated", "tensor \"w\" at data_offsets [0,24] ends beyond the 23 data bytes"},
      {"deeply_nested_json", "tensor \"w\" is an array, not an object"},
      {"dtype_lower_case", "tensor \"a\": unknown dtype \"f32\""},
      {"dtype_missing", "tensor \"a\": dtype is missing"},
      {"dtype_unknown", "tensor \"a\": unknown dtype \"F128\""},
      {"duplicate_field", "tensor \"w\": the field \"dtype\" appears twice"},
      {"eight_bytes_only", "length 16 is more than the 0 bytes that follow"},
      {"empty_file", "the file has 0 bytes, fewer than the 8"},
      {"header_garbage_after_object", "expected end of input"},
      {"header_invalid_json", "unexpected end of input"},
      {"header_invalid_utf8", "ill-formed UTF-8"},
      {"header_is_array", "the header is an array, not an object"},
      {"header_is_null", "the header is null, not an object"},
      {"header_length_beyond_file", "length 10000 is more than the 81 bytes that follow"},
      {"header_length_max_u64", "length 18446744073709551615 is over the format's limit"},
      {"header_length_one_short", "unexpected end of input"},
      {"header_length_over_100mb", "length 100000001 is over the format's limit of 100000000"},
      {"header_length_zero", "the header is empty"},
      {"header_nul_padding", "NUL byte at its byte 54"},
      {"header_trailing_comma", "unexpected '}'; expected string literal"},
      {"header_truncated", "length 57 is more than the 22 bytes that follow"},
      {"lone_surrogate_name", "surrogate U+D800..U+DBFF must be followed by"},
      {"metadata_invalid_escape", "forbidden character after backslash"},
      {"metadata_is_string", "__metadata__ is the string \"x\", not an object"},
      {"metadata_nested", "__metadata__: \"a\" is an object, not a string"},
      {"metadata_value_null", "__metadata__: \"step\" is null, not a string"},
      {"metadata_value_number", "__metadata__: \"step\" is 5, not a string"},
      {"not_a_safetensors_zip", "the file is a zip archive"},
      {"offsets_beyond_end", "tensor \"a\" at data_offsets [0,16] ends beyond the 8 data bytes"},
      {"offsets_float", "tensor \"w\": data_offsets holds 0.0, not an integer"},
      {"offsets_hole",
       "tensor \"b\" at data_offsets [12,20] leaves a hole: no tensor holds the bytes from 8"},
      {"offsets_negative", "tensor \"a\": data_offsets holds -8, not an integer of 0"},
      {"offsets_one_number", "tensor \"a\": data_offsets holds 1 numbers, not 2"},
      {"offsets_over_u64",
       "tensor \"w\": data_offsets holds 18446744073709551620, not an integer of 0 .. 2^63 - 1"},
      {"offsets_overlap", "tensor \"b\" at data_offsets [4,12] overlaps the tensor that ends at byte 8"},
      {"offsets_reversed", "tensor \"a\": data_offsets [8,0] end before they begin"},
      {"offsets_same_range", "at data_offsets [0,8] overlaps the tensor that ends at byte 8"},
      {"offsets_start_not_zero",
       "tensor \"a\" at data_offsets [4,12] leaves a hole: no tensor holds the bytes from 0"},
      {"offsets_three_numbers", "tensor \"a\": data_offsets holds 3 numbers, not 2"},
      {"seven_bytes", "the file has 7 bytes, fewer than the 8"},
      {"shape_bytes_overflow", "tensor \"a\": the size of F32 [4611686018427387905] overflows"},
      {"shape_missing", "tensor \"a\": shape is missing"},
      {"shape_negative", "tensor \"a\": shape holds -1, not an integer of 0"},
      {"shape_not_integers", "tensor \"a\": shape holds the string \"2\", not an integer"},
      {"shape_product_mismatch", "tensor \"a\": F32 [3,3] takes 36 bytes, but data_offsets [0,24] hold 24"},
      {"shape_product_overflow", "tensor \"a\": the size of F32 [4294967296,4294967296] overflows"},
      {"tensor_entry_not_object", "tensor \"w\" is an array, not an object"},
      {"trailing_bytes", "the file has 3 bytes after the last tensor's data"},
      {"zero_size_out_of_range", "tensor \"a\" at data_offsets [100,100] lies beyond the 0 data bytes"},
  };
  std::set<std::string> listed;
  for (const auto& [name, fault] : faults) {
    const std::string path = golden_folder() + "/safetensors_bad/" + name + ".safetensors";
    const std::string message = message_of<DataError>([&] { Safetensors::open(path); });
    CAPTURE(path, fault, message);
    CHECK(contains(message, path));
    CHECK(contains(message, fault));
    listed.insert(name);
  }
  check_listed("safetensors_bad", listed);
}

TEST_CASE("unusual but valid files are read right", "[golden]") {
  check_listed("safetensors_good",
               {"header_padded_with_spaces", "many_dtypes", "no_metadata", "no_tensors", "only_metadata",
                "out_of_order_header", "scalars", "unicode_names", "whitespace_inside_json", "zero_size"});
  const Floats one_to_five_from_zero = {0, 1, 2, 3, 4, 5};

  for (const std::string name : {"header_padded_with_spaces", "whitespace_inside_json"}) {
    const Safetensors file = Safetensors::open(good(name));
    REQUIRE(file.tensors().size() == 1);
    CHECK(file.info("w").shape == Shape{2, 3});
    CHECK(file.info("w").numel() == 6);
    CHECK(file.values<float>("w") == one_to_five_from_zero);
    CHECK(file.metadata().empty());
  }
  {
    const Safetensors file = Safetensors::open(good("no_metadata"));
    CHECK(file.info("w").shape == Shape{3, 5});
    const Floats values = file.values<float>("w");
    REQUIRE(values.size() == 15);
    CHECK(values[0] == 0x1.3807c2p-2f);
    CHECK(values[14] == 0x1.debac4p-2f);
    CHECK(file.metadata().empty());
  }
  {
    const Safetensors file = Safetensors::open(good("no_tensors"));
    CHECK(file.tensors().empty());
    CHECK(file.metadata().empty());
    CHECK_FALSE(file.contains("w"));
  }
  {
    const Safetensors file = Safetensors::open(good("only_metadata"));
    CHECK(file.tensors().empty());
    CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"},
                                                                {"unicode", "na\u00efve \u2713 \u6f22\u5b57"},
                                                                {"empty", ""}});
  }
  {
    const Safetensors file = Safetensors::open(good("out_of_order_header"));
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.tensors()[0].name == "a");
    CHECK(file.tensors()[1].name == "z");
    CHECK(file.values<float>("a") == Floats{0, 1});
    CHECK(file.values<float>("z") == Floats{2});
  }
  {
    const Safetensors file = Safetensors::open(good("scalars"));
    CHECK(file.info("f").shape.empty());
    CHECK(file.info("f").numel() == 1);
    CHECK(file.values<float>("f") == Floats{1.5f});
    CHECK(file.values<int64_t>("i") == std::vector<int64_t>{int64_t{1} << 40});
    CHECK(file.values<bool>("t") == std::vector<bool>{true});
  }
  {
    const Safetensors file = Safetensors::open(good("unicode_names"));
    REQUIRE(file.tensors().size() == 3);
    CHECK(file.values<float>("\u0441\u043b\u043e\u0439.0.\u03b2") == Floats{1, 2});
    CHECK(file.values<float>("\u6a21\u578b \u00e9 \"q\" \\") == Floats{3});
    CHECK(file.values<uint8_t>("emoji\U0001F600") == std::vector<uint8_t>{9});
  }
  {
    const Safetensors file = Safetensors::open(good("zero_size"));
    REQUIRE(file.tensors().size() == 3);
    CHECK(file.info("a").shape == Shape{0});
    CHECK(file.info("b").shape == Shape{2, 0, 3});
    CHECK(file.info("b").numel() == 0);
    CHECK(file.values<float>("a").empty());
    CHECK(file.bytes("b").empty());
    CHECK(file.values<int64_t>("c") == std::vector<int64_t>{-7});
  }
}

TEST_CASE("all dtypes are read", "[golden]") {
  const Safetensors file = Safetensors::open(good("many_dtypes"));
  REQUIRE(file.tensors().size() == 15);
  for (const TensorInfo& tensor : file.tensors()) {
    CAPTURE(tensor.name);
    CHECK(tensor.name == "t_" + std::string(dtype_name(tensor.dtype)));
    CHECK(tensor.shape == Shape{2, 3});
    CHECK(file.bytes(tensor.name).size() == 6 * dtype_size(tensor.dtype));
  }
  CHECK(file.values<double>("t_F64") == std::vector<double>{45, 23, 10, 55, 88, 7});
  CHECK(file.values<float>("t_F32") == Floats{85, 82, 28, 63, 17, 76});
  CHECK(file.values<int64_t>("t_I64") == std::vector<int64_t>{90, 37, 8, 47, 79, 19});
  CHECK(file.values<int32_t>("t_I32") == std::vector<int32_t>{46, 13, 68, 48, 33, 23});
  CHECK(file.values<int16_t>("t_I16") == std::vector<int16_t>{56, 67, 94, 44, 16, 83});
  CHECK(file.values<int8_t>("t_I8") == std::vector<int8_t>{63, 70, 10, 31, 77, 83});
  CHECK(file.values<uint64_t>("t_U64") == std::vector<uint64_t>{44, 80, 84, 39, 89, 29});
  CHECK(file.values<uint32_t>("t_U32") == std::vector<uint32_t>{24, 68, 64, 14, 83, 20});
  CHECK(file.values<uint16_t>("t_U16") == std::vector<uint16_t>{80, 1, 79, 78, 78, 66});
  CHECK(file.values<uint8_t>("t_U8") == std::vector<uint8_t>{47, 70, 28, 78, 56, 46});
  CHECK(file.values<bool>("t_BOOL") == std::vector<bool>{true, true, false, false, false, false});
  // The dtypes without a type of ours: an F16 of 70 is 0x5460, a BF16 of -0.40625 is 0xbed0.
  CHECK(raw(file, "t_F16") ==
        std::vector<int>{0x60, 0x54, 0x80, 0x50, 0x00, 0x47, 0x10, 0x56, 0xa0, 0x51, 0x90, 0x55});
  CHECK(raw(file, "t_BF16") ==
        std::vector<int>{0xbb, 0x3e, 0xd3, 0x3e, 0xdc, 0x3e, 0x09, 0x40, 0xd0, 0xbe, 0x03, 0xbf});
  CHECK(raw(file, "t_F8_E4M3") == std::vector<int>{0x2c, 0x43, 0x41, 0x2f, 0x55, 0x38});
  CHECK(raw(file, "t_F8_E5M2") == std::vector<int>{0x08, 0x4c, 0x39, 0x3f, 0x38, 0x37});
}

// The format's text forbids a leading space and duplicate names, so those are refused; the rest is read.
TEST_CASE("disputed files are refused or read right", "[golden]") {
  check_listed("safetensors_disputed",
               {"duplicate_tensor_name", "empty_name", "header_starts_with_space", "misaligned_data",
                "misaligned_second_tensor", "unknown_field_in_tensor"});
  const auto open = [](const std::string& name) {
    return Safetensors::open(golden_folder() + "/safetensors_disputed/" + name + ".safetensors");
  };
  CHECK(contains(message_of<DataError>([&] { open("duplicate_tensor_name"); }),
                 "the name \"w\" appears twice"));
  CHECK(
      contains(message_of<DataError>([&] { open("header_starts_with_space"); }), "begins with white space"));
  CHECK(open("empty_name").values<float>("") == Floats{0});
  CHECK(open("misaligned_data").values<float>("wxy") == Floats{0});
  CHECK(open("misaligned_second_tensor").values<uint8_t>("a") == std::vector<uint8_t>{'a', 'b', 'c'});
  CHECK(open("misaligned_second_tensor").values<float>("b") == Floats{0});
  CHECK(open("unknown_field_in_tensor").values<float>("w") == Floats{0});
}

TEST_CASE("faults beyond the golden files are found too") {
  const std::string w = R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  CHECK(fault_of("{" + w + "}", 1).empty());
  CHECK(contains(fault_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0),
                 "__metadata__: the field \"a\" appears twice"));
  CHECK(contains(fault_of(R"({"__metadata__":{},"__metadata__":{}})", 0),
                 "the name \"__metadata__\" appears twice"));
  CHECK(contains(fault_of(R"({"__metadata__":["a"]})", 0), "__metadata__ is an array, not an object"));
  CHECK(contains(fault_of(R"({"w":{"dtype":[],"shape":[1],"data_offsets":[0,1]}})", 1), "dtype is an array"));
  CHECK(
      contains(fault_of(R"({"w":{"dtype":"U8","shape":{},"data_offsets":[0,1]}})", 1), "shape is an object"));
  CHECK(contains(fault_of(R"({"w":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1),
                 "shape holds an array"));
  CHECK(contains(fault_of(R"({"w":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}})", 1),
                 "shape holds true"));
  CHECK(contains(fault_of(R"({"w":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}})", 0), "not an integer"));
  CHECK(
      contains(fault_of(R"({"w":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}})", 1), "shape holds 1e0"));
  CHECK(contains(fault_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":8}})", 1),
                 "data_offsets is 8, not an array"));
  CHECK(contains(fault_of(R"({"w":{"dtype":"U8","shape":[1]}})", 1), "data_offsets is missing"));
  CHECK(contains(fault_of(R"({"w":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", 1),
                 "9223372036854775808, more than 2^63 - 1"));
  CHECK(
      contains(fault_of(R"({"w":{"dtype":"U8","shape":[9223372036854775807,4,0],"data_offsets":[0,0]}})", 0),
               "overflows"));
  CHECK(contains(fault_of(R"({"w":5})", 0), "tensor \"w\" is 5, not an object"));
  CHECK(contains(fault_of("{} // comment", 0), "not valid JSON"));
  CHECK(contains(fault_of("\xEF\xBB\xBF{}", 0), "byte order mark"));
  CHECK(contains(fault_of("\"text\"", 0), "the header is the string \"text\""));
  CHECK(contains(fault_of(R"({"\udc00":{}})", 0), "surrogate"));
  CHECK(contains(fault_of("{\"a\tb\":{}}", 0), "control character"));
  CHECK(contains(fault_of("{\"\xc0\xaf\":{}}", 0), "ill-formed UTF-8"));
}

TEST_CASE("an unknown field may nest, but not without end") {
  const auto nested = [](int depth) {
    return R"({"w":{"extra":)" + std::string(static_cast<size_t>(depth), '[') + R"({"dtype":1})" +
           std::string(static_cast<size_t>(depth), ']') +
           R"(,"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  };
  CHECK(fault_of(nested(1), 1).empty());
  CHECK(fault_of(nested(63), 1).empty());
  CHECK(contains(fault_of(nested(64), 1), "the unknown field \"extra\" is nested deeper than 64"));
  CHECK(contains(fault_of(nested(1000000), 1), "nested deeper than 64"));
}

TEST_CASE("a message stays short however long the name is") {
  const std::string name(1000000, 'x');
  CHECK(fault_of("{\"" + name + "\":1}", 0).size() < 500);
  CHECK(fault_of("{\"" + name, 0).size() < 600);
  std::string shape = "1";
  for (int i = 0; i < 10000; ++i) shape += ",1";
  CHECK(fault_of(R"({"w":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,2]}})", 2).size() < 500);
}

TEST_CASE("what is no regular file is refused") {
  const TemporaryFolder folder;
  CHECK(contains(message_of<DataError>([&] { Safetensors::open(folder.file("none")); }), "No such file"));
  CHECK(contains(message_of<DataError>([&] { Safetensors::open(folder.path()); }), "not a regular file"));
  CHECK(contains(message_of<DataError>([&] { Safetensors::open("/dev/null"); }), "not a regular file"));
}

// Any single damaged byte of the header is refused or still reads in bounds, and no prefix reads as a file.
TEST_CASE("damaged files never crash the reader") {
  const TemporaryFolder folder;
  const std::string path = folder.file("file");
  const Floats values(6, 1.5f);
  write_safetensors(path,
                    {{"w", Dtype::f32, {2, 3}, as_bytes(values)}, {"v", Dtype::u8, {24}, as_bytes(values)}},
                    {{"key", "value"}});
  const std::string whole = slurp(path);
  for (size_t size = 0; size < whole.size(); ++size) {
    spill(path, std::string_view(whole).substr(0, size));
    CAPTURE(size);
    CHECK_THROWS_AS(Safetensors::open(path), DataError);
  }
  size_t refused = 0;
  const size_t header_end = whole.size() - 48;
  for (size_t at = 0; at < header_end; ++at) {
    for (const char flip : {'\x01', '\x10', '\x80'}) {
      std::string damaged = whole;
      damaged[at] ^= flip;
      spill(path, damaged);
      try {
        const Safetensors file = Safetensors::open(path);
        size_t total = 0;
        for (const TensorInfo& tensor : file.tensors()) total += raw(file, tensor.name).size();
        CHECK(total == 48);
      } catch (const DataError&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 2 * header_end);
}

TEST_CASE("a wrong name or dtype is named together with what there is") {
  const TemporaryFolder folder;
  const std::string path = folder.file("file");
  const Floats values = {1, 2};
  write_safetensors(path,
                    {{"layers.0.norm.weight", Dtype::f32, {2}, as_bytes(values)},
                     {"layers.1.norm.weight", Dtype::f32, {2}, as_bytes(values)},
                     {"flag", Dtype::boolean, {8}, as_bytes(values)}},
                    {});
  const Safetensors file = Safetensors::open(path);
  const std::string name = message_of<DataError>([&] { file.info("layers.1.norm.wieght"); });
  CHECK(contains(name, path + " holds no tensor \"layers.1.norm.wieght\"; near: \"layers.1.norm.weight\", "
                              "\"layers.0.norm.weight\""));
  CHECK_THROWS_AS(file.bytes("x"), DataError);
  const std::string dtype = message_of<DataError>([&] { file.values<double>("layers.0.norm.weight"); });
  CHECK(contains(dtype, "tensor \"layers.0.norm.weight\" is of dtype F32, not F64"));
  CHECK(contains(message_of<DataError>([&] { file.values<bool>("flag"); }), "a BOOL is 0 or 1"));
}

}  // namespace
}  // namespace hax
