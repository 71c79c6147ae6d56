// The config.json beside weights in Hugging Face's form.
#include "lib/base/error.h"
#include "lib/convert/huggingface_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  try {
    const HuggingfaceConfig read =
        read_huggingface_config(fuzz::text_of(data, size), "config.json", Config());
    fuzz::demand(read.vocab_size >= 1, "a vocabulary has a size");
  } catch (const DataError&) {
  } catch (const UsageError&) {
  }
  return 0;
}
