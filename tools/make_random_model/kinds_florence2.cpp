#include "tools/make_random_model/kinds_florence2.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "distorch/models/florence2/model.h"

namespace distorch::random_model {
namespace {

using models::florence2::Config;
using Json = nlohmann::ordered_json;

/// Tokens that the tokenizer adds by itself to those of its files.
constexpr std::int64_t kAdded = 1024;

Config sized(Config config, Size size) {
  auto& text = config.text;
  if (size != Size::Full) {
    text.encoder_layers = text.decoder_layers = 2;
    for (auto& stage : config.vision.stages) stage.depth = 1;
  }
  if (size != Size::Tiny) return config;
  for (auto& stage : config.vision.stages) {
    stage.width /= 4;
    stage.heads = stage.groups = std::max<std::int64_t>(1, stage.width / 32);
  }
  text.vocabulary = 1500;
  text.width = 64;
  text.encoder_heads = text.decoder_heads = 2;
  text.encoder_mlp = text.decoder_mlp = 128;
  return config;
}

Json config_json(const Config& config) {
  auto list = [&](auto member) {
    Json numbers = Json::array();
    for (const auto& stage : config.vision.stages) numbers.push_back(stage.*member);
    return numbers;
  };
  using Stage = models::florence2::StageConfig;
  const auto& text = config.text;
  Json vision = {{"model_type", "davit"},
                 {"patch_size", list(&Stage::kernel)},
                 {"patch_stride", list(&Stage::stride)},
                 {"patch_padding", list(&Stage::padding)},
                 {"patch_prenorm", list(&Stage::norm_first)},
                 {"dim_embed", list(&Stage::width)},
                 {"num_heads", list(&Stage::heads)},
                 {"num_groups", list(&Stage::groups)},
                 {"depths", list(&Stage::depth)},
                 {"window_size", config.vision.window},
                 {"projection_dim", text.width},
                 {"image_pos_embed",
                  {{"type", "learned_abs_2d"}, {"max_pos_embeddings", config.vision.positions}}}};
  Json language = {{"vocab_size", text.vocabulary},
                   {"d_model", text.width},
                   {"max_position_embeddings", text.positions},
                   {"encoder_layers", text.encoder_layers},
                   {"encoder_attention_heads", text.encoder_heads},
                   {"encoder_ffn_dim", text.encoder_mlp},
                   {"decoder_layers", text.decoder_layers},
                   {"decoder_attention_heads", text.decoder_heads},
                   {"decoder_ffn_dim", text.decoder_mlp},
                   {"decoder_start_token_id", 2},
                   {"eos_token_id", 2},
                   {"pad_token_id", 1},
                   {"forced_bos_token_id", 0},
                   {"forced_eos_token_id", 2},
                   {"early_stopping", true},
                   {"no_repeat_ngram_size", 3},
                   {"num_beams", 3}};
  return {{"model_type", "florence2"}, {"text_config", language}, {"vision_config", vision}};
}

/// The character that stands for a byte in such a vocabulary: itself where it can be seen.
std::string character_of(int byte) {
  static const auto hidden = [](int b) { return b < 33 || (b > 126 && b < 161) || b == 173; };
  int code = byte;
  if (hidden(byte)) {
    code = 256;
    for (int before = 0; before < byte; ++before) code += hidden(before) ? 1 : 0;
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

/// Single bytes and made-up words, which nothing is spelt with.
Json vocabulary(std::int64_t size) {
  Json tokens;
  std::int64_t next = 0;
  for (const char* name : {"<s>", "<pad>", "</s>", "<unk>"}) tokens[name] = next++;
  for (int byte = 0; byte < 256; ++byte) tokens[character_of(byte)] = next++;
  while (next < size - 1) {
    tokens[fmt::format("{}word{}", character_of(' '), next)] = next;
    ++next;
  }
  tokens["<mask>"] = next;
  return tokens;
}

Kind kind(const char* name, const char* description, Config (*full)()) {
  return {.name = name,
          .description = description,
          .folder = "LLM",
          .dtype = "F16",
          .shapes =
              [full](Size size) {
                models::florence2::Model model(sized(full(), size));
                std::vector<Shape> shapes;
                for (const auto& weight : model.manifest().weights())
                  shapes.push_back({weight.name, weight.shape});
                return shapes;
              },
          .beside = [full](Size size) -> std::map<std::string, std::string> {
            const auto config = sized(full(), size);
            return {{"config.json", config_json(config).dump(1) + "\n"},
                    {"vocab.json", vocabulary(config.text.vocabulary - kAdded).dump() + "\n"},
                    {"merges.txt", "#version: 0.2\n"}};
          }};
}

}  // namespace

std::vector<Kind> florence2_kinds() {
  return {kind("florence2", "Florence-2 base, which describes pictures, with its folder's files",
               &Config::base),
          kind("florence2-large", "Florence-2 large, the same", &Config::large)};
}

}  // namespace distorch::random_model
