#include "distorch/quant/encoding.h"

#include <algorithm>

#include "distorch/quant/fp8.h"
#include "distorch/quant/gguf.h"

namespace distorch::quant {

const std::vector<const Encoding*>& encodings() {
  static const auto list = [] {
    std::vector<const Encoding*> all = {&float8_e4m3fn(), &float8_e5m2()};
    all.insert(all.end(), gguf_encodings().begin(), gguf_encodings().end());
    return all;
  }();
  return list;
}

const Encoding* encoding_named(std::string_view name) {
  const auto& list = encodings();
  auto at = std::find_if(list.begin(), list.end(),
                         [&](const Encoding* encoding) { return encoding->name() == name; });
  return at == list.end() ? nullptr : *at;
}

}  // namespace distorch::quant
