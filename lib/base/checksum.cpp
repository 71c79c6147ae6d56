// Checksums, by xxHash's header-only mode: the hash is compiled into this file alone.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdio>

#include "lib/base/files.h"

namespace hax {
namespace {

// Most significant digit first, as `xxhsum -H2` prints it.
std::string hexadecimal(XXH128_hash_t hash) {
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace

struct Checksum::State {
  XXH3_state_t xxh3;  // 64-byte aligned by its type, which make_unique honours
};

Checksum::Checksum() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh3); }

Checksum::~Checksum() = default;

void Checksum::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh3, bytes.data(), bytes.size());
}

std::string Checksum::hex() const { return hexadecimal(XXH3_128bits_digest(&state_->xxh3)); }

std::string checksum(std::span<const std::byte> bytes) {
  return hexadecimal(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace hax
