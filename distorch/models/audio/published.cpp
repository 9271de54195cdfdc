#include "distorch/models/audio/published.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/base/error.h"

namespace distorch::models::audio {

using Json = nlohmann::json;

namespace {

Json object_in(const PublishedText& file) {
  auto object = Json::parse(file.text, nullptr, false);
  if (!object.is_object()) throw Error(ErrorKind::Format, file.where, "is no JSON object");
  return object;
}

}  // namespace

void check_published(const Wav2Vec2Config& c, const PublishedText& file) {
  const auto config = object_in(file);
  struct Entry {
    const char* name;
    Json wanted;
    Json usual;  // where the file says nothing
  };
  const Json kernels = {10, 3, 3, 3, 3, 2, 2}, strides = {5, 2, 2, 2, 2, 2, 2};
  constexpr int usual_heads = 12;
  for (const auto& [name, wanted, usual] :
       {Entry{"model_type", "wav2vec2", "wav2vec2"}, Entry{"conv_kernel", kernels, kernels},
        Entry{"conv_stride", strides, strides},
        Entry{"feat_extract_norm", c.large ? "layer" : "group", "group"},
        Entry{"do_stable_layer_norm", c.large, false},
        Entry{"num_attention_heads", c.heads(), usual_heads},
        Entry{"feat_extract_activation", "gelu", "gelu"}, Entry{"hidden_act", "gelu", "gelu"},
        Entry{"layer_norm_eps", 1e-5, 1e-5}, Entry{"add_adapter", false, false}})
    if (const auto value = config.value(name, usual); value != wanted)
      throw Error(ErrorKind::Format, file.where,
                  fmt::format("'{}' is {}, and of the encoder beside it only {} is known here",
                              name, value.dump(), wanted.dump()));
}

bool levels_sound(const Wav2Vec2Config& encoder, const PublishedText& file) {
  const auto levels = object_in(file).value("do_normalize", Json(true));
  if (!levels.is_boolean())
    throw Error(ErrorKind::Format, file.where, "'do_normalize' is neither true nor false");
  if (encoder.large && !levels.get<bool>())
    throw Error(ErrorKind::Format, file.where,
                "'do_normalize' is false, and an encoder of the large form hears levelled sound");
  return levels.get<bool>();
}

}  // namespace distorch::models::audio
