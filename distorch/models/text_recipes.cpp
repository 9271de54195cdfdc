#include "distorch/models/text_recipes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/clip/recipes.h"
#include "distorch/models/flow_recipes.h"
#include "distorch/models/qwen/config.h"
#include "distorch/models/t5/config.h"

namespace distorch::models {

using weights::Checkpoint;

const std::vector<EncoderKind>& encoder_kinds() {
  static const std::vector<EncoderKind> list = {
      {"clip_l", "CLIP-L",
       [](const Checkpoint& f) { return clip::find(f, clip::TextKind::ClipL); }},
      {"clip_g", "OpenCLIP-G",
       [](const Checkpoint& f) { return clip::find(f, clip::TextKind::ClipG); }},
      {"clip_h", "OpenCLIP-H",
       [](const Checkpoint& f) { return clip::find(f, clip::TextKind::ClipH); }},
      {"t5xxl", "T5", t5::text_part},
      {"byt5_small", "ByT5 small", t5::byt5_text_part},
      {"umt5xxl", "UMT5", t5::umt5_text_part},
      {"qwen25_7b", "Qwen2.5-VL 7B",
       [](const Checkpoint& f) { return qwen::text_part(f, qwen::TextKind::Qwen25Vl7B); }},
      {"qwen3_4b", "Qwen3 4B",
       [](const Checkpoint& f) { return qwen::text_part(f, qwen::TextKind::Qwen3_4B); }},
      {"qwen3_8b", "Qwen3 8B",
       [](const Checkpoint& f) { return qwen::text_part(f, qwen::TextKind::Qwen3_8B); }},
      {"llama", "Llama 3 8B",
       [](const Checkpoint& f) { return qwen::text_part(f, qwen::TextKind::Llama3_8B); }},
  };
  return list;
}

namespace {

TextRecipe clip_l_alone(const FoundEncoders& f) {
  return clip::single_recipe(f.at("clip_l"), clip::TextKind::ClipL);
}
TextRecipe clip_g_alone(const FoundEncoders& f) {
  return clip::single_recipe(f.at("clip_g"), clip::TextKind::ClipG);
}
TextRecipe clip_h_alone(const FoundEncoders& f) {
  return clip::single_recipe(f.at("clip_h"), clip::TextKind::ClipH);
}
TextRecipe clip_l_and_g(const FoundEncoders& f) {
  return clip::sdxl_recipe(f.at("clip_l"), f.at("clip_g"));
}

}  // namespace

const std::vector<RecipeKind>& text_recipes() {
  static const std::vector<RecipeKind> list = {
      {"stable_diffusion", {"clip_l"}, true, clip_l_alone},
      {"stable_diffusion", {"clip_h"}, true, clip_h_alone},
      {"stable_diffusion", {"clip_g"}, true, clip_g_alone},
      {"sdxl", {"clip_l", "clip_g"}, true, clip_l_and_g},
      {"sd3", {"clip_l", "clip_g", "t5xxl"}, false, sd3_recipe},
      {"flux", {"clip_l", "t5xxl"}, true, flux_recipe},
      {"flux2", {"qwen3_4b"}, true, klein_recipe},
      {"flux2", {"qwen3_8b"}, true, klein_recipe},
      {"qwen_image", {"qwen25_7b"}, true, qwen_image_recipe},
      {"lumina2", {"qwen3_4b"}, true, z_image_recipe},
      {"wan", {"umt5xxl"}, true, wan_recipe},
      {"hunyuan_video", {"clip_l", "llama"}, true, hunyuan_video_recipe},
      {"ltxv", {"t5xxl"}, true, ltxv_recipe},
      {"hunyuan_video_15", {"qwen25_7b", "byt5_small"}, true, hunyuan_video15_recipe},
      // What ComfyUI makes of one file whatever the type, if that says little.
      {"", {"clip_l"}, true, clip_l_alone},
      {"", {"clip_h"}, true, clip_h_alone},
      {"", {"clip_g"}, true, clip_g_alone},
      {"", {"qwen25_7b"}, true, qwen_image_recipe},
      {"", {"qwen3_4b"}, true, z_image_recipe},
      {"", {"qwen3_8b"}, true, klein_recipe},
  };
  return list;
}

namespace {

/// Encoders that we know in types that use them in a way that we do not have.
bool is_foreign(const std::string& type, const FoundEncoders& found) {
  static const std::set<std::pair<std::string, std::string>> kOthers = {
      {"stable_cascade", "clip_g"}, {"hunyuan_image", "qwen25_7b"}, {"longcat_image", "qwen25_7b"},
      {"ideogram4", "qwen3_8b"},    {"hidream", "clip_l"},          {"hidream", "clip_g"},
  };
  return std::ranges::any_of(
      found, [&](const auto& entry) { return kOthers.count({type, entry.first}) > 0; });
}

/// Types with which nobody means another model.
const std::set<std::string> kStrict = {"sd3",  "flux",          "flux2",
                                       "sdxl", "hunyuan_video", "hunyuan_video_15"};

bool fits(const RecipeKind& recipe, const FoundEncoders& found, const std::string& type) {
  bool any_type = *recipe.type == '\0';
  if (any_type ? kStrict.count(type) > 0 : recipe.type != type) return false;
  auto known = [&](const auto& entry) {
    return std::ranges::find(recipe.encoders, entry.first) != recipe.encoders.end();
  };
  return !found.empty() && std::ranges::all_of(found, known) &&
         (!recipe.all || found.size() == recipe.encoders.size());
}

std::string title(const std::string& name) {
  for (const auto& kind : encoder_kinds())
    if (kind.name == name) return kind.title;
  return name;
}

std::string titles(const std::vector<std::string>& names, const char* last) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += (i == 0 ? "" : i + 1 == names.size() ? last : ", ") + title(names[i]);
  return text;
}

/// What a type takes, for messages.
std::string wanted(const std::string& type) {
  std::string text;
  for (const auto& recipe : text_recipes())
    if (recipe.type == type)
      text += (text.empty() ? "" : " or ") + std::string(recipe.all ? "" : "any of ") +
              titles(recipe.encoders, " and ");
  return text.empty() ? fmt::format("text encoders of type '{}' are not supported yet", type)
                      : fmt::format("type '{}' takes {}", type, text);
}

TextRecipe made(const FoundEncoders& found, const std::string& type) {
  if (!is_foreign(type, found))
    for (const auto& recipe : text_recipes())
      if (fits(recipe, found, type)) return recipe.make(found);
  return {};
}

/// What else a file holds, for messages.
std::string held_model(const Checkpoint& file) {
  auto family = find_family(file);
  return family ? fmt::format(" but a diffusion model ({})", family->name()) : "";
}

FoundEncoders encoder_in(const Checkpoint& file) {
  for (const auto& kind : encoder_kinds())
    if (auto part = kind.find(file); !part.empty()) return {{kind.name, part}};
  return {};
}

}  // namespace

TextRecipe text_recipe(const std::vector<Checkpoint>& files, const std::string& type) {
  FoundEncoders found;
  std::vector<std::string> paths, held;
  for (const auto& file : files) {
    auto encoder = encoder_in(file);
    if (encoder.empty())
      throw Error(
          ErrorKind::Format, file.path(),
          fmt::format("holds no text encoder that is known{}; {}", held_model(file), wanted(type)));
    paths.push_back(file.path());
    held.push_back(title(encoder.begin()->first));
    found.merge(encoder);
  }
  // Two files of one kind are one too many.
  auto recipe = found.size() == files.size() ? made(found, type) : TextRecipe{};
  if (recipe.empty())
    throw Error(ErrorKind::Usage, fmt::format("{}", fmt::join(paths, ", ")),
                fmt::format("{}; {} {}", wanted(type),
                            files.size() == 1 ? "this file holds" : "these files hold",
                            fmt::join(held, " and ")));
  return recipe;
}

TextRecipe checkpoint_recipe(const Checkpoint& file, const std::string& type) {
  FoundEncoders found;
  for (const auto& kind : encoder_kinds()) {
    auto below = file.part(fmt::format("text_encoders.{}.transformer.", kind.name));
    if (below.empty()) continue;
    if (auto part = kind.find(below); !part.empty()) found[kind.name] = std::move(part);
  }
  return found.empty() ? TextRecipe{} : made(found, type);
}

std::string encoder_title(const Checkpoint& file) {
  auto found = encoder_in(file);
  return found.empty() ? "" : title(found.begin()->first);
}

TextRecipe find_text(const Checkpoint& file) {
  auto found = encoder_in(file);
  return found.empty() ? TextRecipe{} : made(found, "");
}

}  // namespace distorch::models
