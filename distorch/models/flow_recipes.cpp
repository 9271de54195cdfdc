#include "distorch/models/flow_recipes.h"

#include "distorch/models/clip/encoder.h"
#include "distorch/models/llama/encoder.h"
#include "distorch/models/qwen/encoder.h"
#include "distorch/models/t5/encoder.h"

namespace distorch::models {

using at::Tensor;

namespace {

constexpr std::int64_t kClipWidth = 768, kBigClipWidth = 1280, kT5Width = 4096, kClipTokens = 77;
constexpr int kSd3Shortest = 77, kFluxShortest = 256, kWanShortest = 512;  // tokens of T5
constexpr int kLtxvShortest = 128;

using Prefixes = std::vector<std::string>;

Prefixes clip_l_prefixes() {
  return {"lora_te_", "lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer."};
}

/// Which of SD3's encoders a file has, and what their states become together.
class Sd3Join {
 public:
  explicit Sd3Join(const FoundEncoders& found)
      : l_(found.count("clip_l")), g_(found.count("clip_g")), t5_(found.count("t5xxl")) {}

  TextStates operator()(const std::vector<TextStates>& each) const {
    std::size_t next = 0;
    const auto* l = l_ ? &each.at(next++) : nullptr;
    const auto* g = g_ ? &each.at(next++) : nullptr;
    const auto* t5 = t5_ ? &each.at(next++) : nullptr;
    bool speaks = (!l && !g) || (l && !l->silent) || (g && !g->silent);
    auto clips = speaks ? side_by_side(l, g) : Tensor();
    std::vector<Tensor> all;
    if (clips.defined())
      all.push_back(at::constant_pad_nd(
          clips, {0, std::max(t5 ? t5->states.size(2) : kT5Width, clips.size(2)) - clips.size(2)}));
    if (t5) all.push_back(t5->states);
    if (all.empty()) all.push_back(at::zeros({1, kClipTokens, kT5Width}));
    auto pooled_of = [&](const TextStates* states, std::int64_t width) {
      return states && speaks ? states->pooled : at::zeros({1, width});
    };
    return {at::cat(all, 1), at::cat({pooled_of(l, kClipWidth), pooled_of(g, kBigClipWidth)}, -1)};
  }

 private:
  static Tensor side_by_side(const TextStates* l, const TextStates* g) {
    if (!l && !g) return {};
    if (!g) return l->states;
    if (!l) return at::constant_pad_nd(g->states, {kClipWidth, 0});
    auto tokens = std::min(l->states.size(1), g->states.size(1));
    return at::cat({l->states.narrow(1, 0, tokens), g->states.narrow(1, 0, tokens)}, -1);
  }
  bool l_, g_, t5_;
};

}  // namespace

TextRecipe sd3_recipe(const FoundEncoders& found) {
  TextRecipe recipe{.join = Sd3Join(found)};
  auto take = [&](const char* name) {
    auto at = found.find(name);
    return at == found.end() ? nullptr : &at->second;
  };
  clip::EncoderUse l_use{.layer = -2, .normalize = false, .project_pooled = false};
  clip::EncoderUse g_use{.layer = -2, .normalize = false};
  const auto *l = take("clip_l"), *g = take("clip_g"), *t5 = take("t5xxl");
  if (l)
    recipe.encoders.push_back(
        clip::text_part_of("clip_l", *l, clip::TextKind::ClipL, l_use, clip_l_prefixes()));
  if (g)
    recipe.encoders.push_back(clip::text_part_of(
        "clip_g", *g, clip::TextKind::ClipG, g_use,
        {l ? "lora_te2_" : "lora_te_", "text_encoder_2.", "text_encoders.clip_g.transformer."}));
  if (t5) {
    Prefixes prefixes = {"text_encoder_3.", "text_encoders.t5xxl.transformer."};
    prefixes.push_back(l || g ? "lora_te3_" : "lora_te1_");
    if (!(l && g)) prefixes.push_back("lora_te2_");
    recipe.encoders.push_back(t5::text_part_of("t5xxl", *t5, kSd3Shortest, prefixes));
  }
  return recipe;
}

TextRecipe flux_recipe(const FoundEncoders& found) {
  clip::EncoderUse use{.project_pooled = false};
  return {{clip::text_part_of("clip_l", found.at("clip_l"), clip::TextKind::ClipL, use,
                              clip_l_prefixes()),
           t5::text_part_of(
               "t5xxl", found.at("t5xxl"), kFluxShortest,
               {"lora_te2_", "lora_te3_", "text_encoder_2.", "text_encoders.t5xxl.transformer."})},
          [](const std::vector<TextStates>& each) {
            return TextStates{each.at(1).states, each.at(0).pooled};
          }};
}

// What the models were trained with, to the letter.
const char* const kQwenEditFrame =
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, "
    "texture, "
    "objects, background), then explain how the user's text instruction should alter or modify the "
    "image. Generate a new image that meets the user's requirements while maintaining consistency "
    "with the original input where appropriate.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n";

TextRecipe qwen_image_recipe(const FoundEncoders& found) {
  qwen::EncoderUse use;
  use.frame =
      "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
      "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
      "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n";
  use.frame_with_pictures = kQwenEditFrame;
  use.frame_with_pictures.replace(use.frame_with_pictures.find("{}"), 2,
                                  "<|vision_start|><|image_pad|><|vision_end|>{}");
  use.own_frames = true;
  use.drop_instructions = true;
  use.embeddings = false;
  return {{qwen::text_part_of("qwen25_7b", found.at("qwen25_7b"), use)}};
}

TextRecipe z_image_recipe(const FoundEncoders& found) {
  qwen::EncoderUse use;
  use.frame = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n";
  use.layer = -2;
  return {{qwen::text_part_of("qwen3_4b", found.at("qwen3_4b"), use)}};
}

TextRecipe klein_recipe(const FoundEncoders& found) {
  qwen::EncoderUse use;
  use.frame = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
  use.shortest = 512;
  use.side_by_side = {9, 18, 27};
  const auto& [name, part] = *found.begin();
  return {{qwen::text_part_of(name, part, use)}};
}

// What the models were trained with, to the letter.
const char* const kHunyuanPictureFrame =
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the "
    "following aspects according to the reference image: 1. The main content and theme of the "
    "video.2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
    "objects.3. Actions, events, behaviors temporal relationships, physical movement changes of "
    "the "
    "objects.4. background environment, light, style and atmosphere.5. camera angles, movements, "
    "and transitions used in the video:<|eot_id|>\n\n<|start_header_id|>user<|end_header_id|>\n\n"
    "{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";

TextRecipe hunyuan_video_recipe(const FoundEncoders& found) {
  clip::EncoderUse use{.project_pooled = false};
  llama::EncoderUse words;
  words.frame =
      "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following "
      "aspects: 1. The main content and theme of the video.2. The color, shape, size, texture, "
      "quantity, text, and spatial relationships of the objects.3. Actions, events, behaviors "
      "temporal relationships, physical movement changes of the objects.4. background environment, "
      "light, style and atmosphere.5. camera angles, movements, and transitions used in the "
      "video:<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>";
  return {{clip::text_part_of("clip_l", found.at("clip_l"), clip::TextKind::ClipL, use,
                              clip_l_prefixes()),
           llama::text_part_of("llama", found.at("llama"), words)},
          [](const std::vector<TextStates>& each) {
            return TextStates{each.at(1).states, each.at(0).pooled, each.at(1).mask};
          }};
}

TextRecipe ltxv_recipe(const FoundEncoders& found) {
  return {{t5::masked_text_part_of(
      "t5xxl", found.at("t5xxl"), kLtxvShortest,
      {"text_encoder.", "text_encoders.t5xxl.transformer.", "lora_te_", "lora_te1_"})}};
}

TextRecipe hunyuan_video15_recipe(const FoundEncoders& found) {
  qwen::EncoderUse use;
  use.frame =
      "<|im_start|>system\nYou are a helpful assistant. Describe the video by detailing the "
      "following aspects:\n1. The main content and theme of the video.\n2. The color, shape, size, "
      "texture, quantity, text, and spatial relationships of the objects.\n3. Actions, events, "
      "behaviors temporal relationships, physical movement changes of the objects.\n4. background "
      "environment, light, style and atmosphere.\n5. camera angles, movements, and transitions "
      "used "
      "in the video.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n";
  use.own_frames = true;
  use.never_empty = true;
  use.drop_instructions = true;
  use.embeddings = false;
  use.layer = -3;
  return {{qwen::text_part_of("qwen25_7b", found.at("qwen25_7b"), use),
           t5::byt5_part_of("byt5_small", found.at("byt5_small"),
                            {"text_encoders.byt5_small.transformer."})}};
}

TextRecipe wan_recipe(const FoundEncoders& found) {
  return {{t5::umt5_part_of("umt5xxl", found.at("umt5xxl"), kWanShortest,
                            {"text_encoders.umt5xxl.transformer.", "lora_te_"})}};
}

}  // namespace distorch::models
