#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/quant/quantize.h"

namespace distorch::test {

/// A packed weight and its companions under the names of ComfyUI's files, with its marker.
inline void add_packed(std::map<std::string, at::Tensor>& to, const std::string& name,
                       const quant::Packed& packed) {
  const auto base = name.substr(0, name.size() - 6);
  to[name] = packed.values.contiguous();
  for (std::size_t i = 0; i < packed.parts.size(); ++i)
    if (packed.parts[i].defined())
      to[base + packed.encoding->companions()[i].names.back()] = packed.parts[i].contiguous();
  const auto text = packed.encoding->marker();
  to[base + "comfy_quant"] = at::tensor(std::vector<std::uint8_t>(text.begin(), text.end()));
}

}  // namespace distorch::test
