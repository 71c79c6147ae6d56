// What the SSD scan's tests share.
#pragma once

#include "lib/ops/ssd.h"
#include "tests/ops/tensors.h"

namespace hax::test {

inline const std::vector<std::string> kSsdInputs{"x", "dt", "A", "B", "C", "D", "dt_bias"};

struct SsdShape {
  int64_t H, P, G, N;
};

inline ops::SsdInputs ssd_inputs(const Tensors& in) {
  return {in[0], in[1], in[2], in[3], in[4], in[5], in[6]};
}

inline TensorFunction ssd_on(const ops::PackedLayout& layout, ops::Path path, int64_t chunk_size = 64) {
  return [&layout, path, chunk_size](const Tensors& in) {
    return ops::ssd(ssd_inputs(in), layout, chunk_size, path);
  };
}

// fp64 inputs with steps from about 0.05 to 2 and decays from slow to fast.
inline Tensors random_ssd_inputs(int64_t T, const SsdShape& s, uint32_t seed) {
  return {random_normal({T, s.H, s.P}, seed),     random_normal({T, s.H}, seed + 1) - 0.5,
          -random_normal({s.H}, seed + 2).exp(),  random_normal({T, s.G, s.N}, seed + 3),
          random_normal({T, s.G, s.N}, seed + 4), random_normal({s.H}, seed + 5),
          random_normal({s.H}, seed + 6) * 0.5};
}

}  // namespace hax::test
