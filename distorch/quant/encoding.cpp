#include "distorch/quant/encoding.h"

#include <algorithm>

#include "distorch/quant/bf16_planes.h"
#include "distorch/quant/four_bit.h"
#include "distorch/quant/fp8.h"

namespace distorch::quant {

const std::vector<const Encoding*>& encodings() {
  static const std::vector<const Encoding*> list = {&float8_e4m3fn(), &float8_e5m2(),
                                                    &bf16_planes(), &nf4(), &fp4()};
  return list;
}

const Encoding* encoding_named(std::string_view name) {
  const auto& list = encodings();
  auto at = std::find_if(list.begin(), list.end(),
                         [&](const Encoding* encoding) { return encoding->name() == name; });
  return at == list.end() ? nullptr : *at;
}

}  // namespace distorch::quant
