// A dataset's manifest, and the task that its parameters describe.
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "lib/data/manifest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  try {
    const Manifest manifest = parse_manifest(fuzz::text_of(data, size), "d/manifest.json");
    fuzz::demand(manifest.fingerprint().size() == 32, "a fingerprint has 32 digits");
    for (const TokenSlot& slot : manifest.spec.slots) {
      fuzz::demand(
          slot.first >= 0 && slot.count >= 1 && int64_t{slot.first} + slot.count <= manifest.spec.vocab_size,
          "slots lie inside the vocabulary");
    }
    const auto task = make_task(manifest, "d");
    fuzz::demand(task->spec().vocab_size == manifest.spec.vocab_size, "the task is the manifest's");
    fuzz::demand(make_task(task_config(manifest, "d"))->parameters() == manifest.parameters,
                 "the task's parameters are the manifest's");
  } catch (const DataError& error) {
    fuzz::demand(std::string_view(error.what()).find("d/manifest.json") != std::string_view::npos,
                 "a refusal names the file");
  }
  return 0;
}
