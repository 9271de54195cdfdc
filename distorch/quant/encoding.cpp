#include "distorch/quant/encoding.h"

#include <algorithm>

#include "distorch/quant/bf16_planes.h"
#include "distorch/quant/block_scaled.h"
#include "distorch/quant/codebook4.h"
#include "distorch/quant/four_bit.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/gguf.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/signed4.h"

namespace distorch::quant {

const std::vector<const Encoding*>& encodings() {
  constexpr int group = 16, rotated = 256;  // where a marker does not say
  static const auto list = [] {
    std::vector<const Encoding*> all = {
        &float8_e4m3fn(),
        &float8_e5m2(),
        &int8_tensorwise(),
        &nvfp4(),
        &mxfp8(),
        &asym_w4a8_int8(group, rotated),
        &convrot_w4a4(rotated),
        &bf16_planes(),
        &nf4(),
        &fp4(),
    };
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
