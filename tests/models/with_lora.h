#pragma once
#include "distorch/models/catalog.h"
#include "tests/models/tiny.h"

namespace distorch::test {

/// What the diffusion model of `file` computes with all adapters of a LoRA file, which must fit.
inline at::Tensor with_lora(const weights::Checkpoint& file, const weights::Checkpoint& lora,
                            const models::Inputs& inputs) {
  auto family = models::detect_family(file);
  auto network = family->make_network();
  auto& manifest = network->manifest();
  TwiceSource source(manifest, family->diffusion(), at::kFloat);
  auto matched = weights::match_lora(lora, family->lora_names(manifest), manifest);
  CHECK(matched.unknown == std::vector<std::string>{});
  CHECK(matched.left_out == std::vector<std::string>{});
  for (const auto& named : matched.adapters)
    for (std::size_t i = 0; i < manifest.weights().size(); ++i)
      if (manifest.weights()[i].name == named.weight)
        manifest.slot(i).adapters.push_back(weights::read_adapter(named, at::kCPU));
  return network->apply(inputs);
}

}  // namespace distorch::test
