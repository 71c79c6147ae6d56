// JSON documents.
#include "lib/base/error.h"
#include "lib/base/json.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  const std::string text = fuzz::text_of(data, size);
  try {
    const nlohmann::json document = parse_json(text);
    fuzz::demand(parse_json(document.dump()) == document, "a document survives being written and read");
    fuzz::demand(shown_json(document).size() < 100, "a value in a message is short");
  } catch (const DataError& error) {
    fuzz::demand(std::string_view(error.what()).size() < 1000, "a refusal is short");
  }
  return 0;
}
