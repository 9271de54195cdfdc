#include "distorch/models/patches.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace distorch::models {

std::string Patches::key() const {
  std::string key;
  for (const auto& f : free_u)
    key += fmt::format("FreeU{}({},{},{},{})", f.version, f.b1, f.b2, f.s1, f.s2);
  if (!skipped.empty()) key += fmt::format("skip({})", fmt::join(skipped, ","));
  if (!identity_attention.empty())
    key += fmt::format("identity({})", fmt::join(identity_attention, ","));
  if (!attention_map.empty()) key += fmt::format("map({})", attention_map);
  return key;
}

}  // namespace distorch::models
