#include "lib/model/mixer.h"

#include <stdexcept>

#include "lib/model/attention.h"
#include "lib/model/constructive.h"
#include "lib/model/mamba.h"
#include "lib/model/mamba2.h"

namespace hax {

std::unique_ptr<Mixer> make_mixer(const ModelConfig& config, int64_t layer, uint64_t seed,
                                  const std::string& prefix, ParameterSet& parameters,
                                  const TokenCodes* codes) {
  switch (config.mixer_of(layer)) {
    case MixerKind::mamba:
      return std::make_unique<Mamba>(config, layer, seed, prefix, parameters);
    case MixerKind::mamba2:
      return std::make_unique<Mamba2>(config, layer, seed, prefix, parameters);
    case MixerKind::attention:
      return std::make_unique<Attention>(config, layer, seed, prefix, parameters);
    case MixerKind::constructive:
      if (codes == nullptr) throw std::invalid_argument("make_mixer: constructive needs the data's codes");
      if (layer == 0) return std::make_unique<OverwriteMixer>(*codes);
      return std::make_unique<LookupMixer>(config, layer, *codes);
  }
  throw std::invalid_argument("make_mixer: unknown mixer " +
                              std::to_string(static_cast<int>(config.mixer_of(layer))));
}

}  // namespace hax
