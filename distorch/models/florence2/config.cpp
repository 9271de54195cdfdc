#include "distorch/models/florence2/config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::florence2 {

using weights::Checkpoint;
using Json = nlohmann::json;

namespace {

constexpr const char* kTable = "language_model.model.shared.weight";
constexpr std::int64_t kLargest = 1 << 20;

/// Reads entries of one object of config.json and says which one is wrong.
class Entries {
 public:
  Entries(const Json& object, std::string name, const std::string& where)
      : object_(object), name_(std::move(name)), where_(where) {}

  [[noreturn]] void refuse(const char* entry, const std::string& sentence) const {
    throw Error(ErrorKind::Format, where_, fmt::format("'{}.{}' {}", name_, entry, sentence));
  }

  std::int64_t size(const char* entry) const {
    const auto found = object_.find(entry);
    if (found == object_.end()) refuse(entry, "is missing");
    return checked(entry, *found, 1);
  }

  /// One number for each stage; as many as `count`, where that is not 0.
  std::vector<std::int64_t> sizes(const char* entry, std::size_t count, std::int64_t least) const {
    const auto found = object_.find(entry);
    if (found == object_.end() || !found->is_array() || found->empty())
      refuse(entry, "must be a list with a number for each stage");
    if (count != 0 && found->size() != count)
      refuse(entry, fmt::format("has {} numbers, 'dim_embed' has {}", found->size(), count));
    std::vector<std::int64_t> result;
    for (const auto& one : *found) result.push_back(checked(entry, one, least));
    return result;
  }

  std::vector<bool> flags(const char* entry, std::size_t count) const {
    const auto found = object_.find(entry);
    if (found == object_.end() || !found->is_array() || found->size() != count)
      refuse(entry, fmt::format("must be a list of {} times true or false", count));
    std::vector<bool> result;
    for (const auto& one : *found) {
      if (!one.is_boolean()) refuse(entry, "holds something that is neither true nor false");
      result.push_back(one.get<bool>());
    }
    return result;
  }

 private:
  std::int64_t checked(const char* entry, const Json& value, std::int64_t least) const {
    if (!value.is_number_integer() || value.get<double>() < static_cast<double>(least) ||
        value.get<double>() > static_cast<double>(kLargest))
      refuse(entry, fmt::format("holds {}, which is no number from {} to {}", value.dump(), least,
                                kLargest));
    return value.get<std::int64_t>();
  }

  const Json& object_;
  std::string name_;
  const std::string& where_;
};

const Json& object_in(const Json& json, const char* name, const std::string& where) {
  const auto found = json.is_object() ? json.find(name) : json.end();
  if (found == json.end() || !found->is_object())
    throw Error(ErrorKind::Format, where,
                fmt::format("has no object '{}': it is no config.json of Florence-2", name));
  return *found;
}

VisionConfig vision_of(const Json& json, const std::string& where) {
  const auto& object = object_in(json, "vision_config", where);
  const Entries entries(object, "vision_config", where);
  const auto widths = entries.sizes("dim_embed", 0, 1);
  const auto count = widths.size();
  const auto heads = entries.sizes("num_heads", count, 1);
  const auto groups = entries.sizes("num_groups", count, 1);
  const auto depths = entries.sizes("depths", count, 1);
  const auto kernels = entries.sizes("patch_size", count, 1);
  const auto strides = entries.sizes("patch_stride", count, 1);
  const auto paddings = entries.sizes("patch_padding", count, 0);
  const auto norms = entries.flags("patch_prenorm", count);
  VisionConfig vision;
  for (std::size_t i = 0; i < count; ++i) {
    if (widths[i] % heads[i] != 0 || widths[i] % groups[i] != 0)
      throw Error(
          ErrorKind::Shape, where,
          fmt::format("stage {} of the vision tower is {} wide, which {} heads and {} groups "
                      "do not share out",
                      i, widths[i], heads[i], groups[i]));
    vision.stages.push_back(
        {widths[i], heads[i], groups[i], depths[i], kernels[i], strides[i], paddings[i], norms[i]});
  }
  vision.window = entries.size("window_size");
  vision.positions =
      Entries(object_in(object, "image_pos_embed", where), "vision_config.image_pos_embed", where)
          .size("max_pos_embeddings");
  return vision;
}

TextConfig text_of(const Json& json, const std::string& where) {
  const Entries entries(object_in(json, "text_config", where), "text_config", where);
  TextConfig text;
  text.width = entries.size("d_model");
  text.positions = entries.size("max_position_embeddings");
  text.encoder_layers = entries.size("encoder_layers");
  text.encoder_heads = entries.size("encoder_attention_heads");
  text.encoder_mlp = entries.size("encoder_ffn_dim");
  text.decoder_layers = entries.size("decoder_layers");
  text.decoder_heads = entries.size("decoder_attention_heads");
  text.decoder_mlp = entries.size("decoder_ffn_dim");
  if (text.width % text.encoder_heads != 0 || text.width % text.decoder_heads != 0)
    throw Error(ErrorKind::Shape, where,
                fmt::format("the language model is {} wide, which {} or {} heads do not share out",
                            text.width, text.encoder_heads, text.decoder_heads));
  return text;
}

VisionConfig vision_from(std::int64_t first_width) {
  VisionConfig vision;
  for (int i = 0; i < 4; ++i) {
    const auto width = first_width << i;
    StageConfig stage{.width = width, .heads = width / 32, .groups = width / 32};
    if (i == 0) stage = {width, width / 32, width / 32, 1, 7, 4, 3, false};
    if (i == 2) stage.depth = 9;
    vision.stages.push_back(stage);
  }
  return vision;
}

}  // namespace

Config Config::base() { return {vision_from(128), {}}; }

Config Config::large() {
  TextConfig text;
  text.width = 1024;
  text.positions = 4096;
  text.encoder_layers = text.decoder_layers = 12;
  text.encoder_heads = text.decoder_heads = 16;
  text.encoder_mlp = text.decoder_mlp = 4096;
  return {vision_from(256), text};
}

Checkpoint florence2_part(const Checkpoint& file) {
  if (!file.has("vision_tower.convs.0.proj.weight") || !file.has("image_projection")) return {};
  auto part = file;
  // Some files name the one table after one of its users.
  for (const char* other :
       {"language_model.model.encoder.embed_tokens.weight",
        "language_model.model.decoder.embed_tokens.weight", "language_model.lm_head.weight"})
    if (!part.has(kTable)) part.rename(other, kTable);
  return part;
}

Config read_config(const std::string& json, const std::string& where, const Checkpoint& part) {
  const auto parsed = Json::parse(json, nullptr, false);
  if (parsed.is_discarded()) throw Error(ErrorKind::Format, where, "is no JSON");
  Config config{vision_of(parsed, where), text_of(parsed, where)};
  config.text.vocabulary = size_of(part, kTable, 0);
  return config;
}

}  // namespace distorch::models::florence2
