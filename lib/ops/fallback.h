// What is known of ops that were asked for Path::automatic and run their composite path all the same, because
// the fused kernel does not take the input.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>

#include "lib/ops/torch.h"

namespace hax::ops {

// Why a fused kernel does not take an input ("d_v 512 is above 256"); empty where it does.
using Refusal = std::string;

// The first that is not empty.
Refusal first_refusal(std::initializer_list<Refusal> refusals);
Refusal above(const char* name, int64_t value, int64_t largest);
// `found` has to be one of `taken`.
Refusal other_dtype(const char* name, at::ScalarType found, std::initializer_list<at::ScalarType> taken);

// The composite path of `op` runs on `device` for this reason. On a GPU one line of the log says so, once for
// each op and reason in the life of the process. From any thread.
void note_fallback(const char* op, at::Device device, const Refusal& refusal);

// "op: reason" of every fallback while it lives, in any thread and on any device.
class FallbackWatch {
 public:
  FallbackWatch();
  ~FallbackWatch();
  FallbackWatch(const FallbackWatch&) = delete;
  FallbackWatch& operator=(const FallbackWatch&) = delete;

  std::set<std::string> seen() const;

 private:
  friend void note_fallback(const char* op, at::Device device, const Refusal& refusal);
  std::set<std::string> seen_;
};

}  // namespace hax::ops
