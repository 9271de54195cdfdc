#include "distorch/models/ltxv_vae/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "distorch/base/error.h"
#include "distorch/models/file_config.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::ltxv_vae {

using Json = nlohmann::json;
using weights::Checkpoint;

namespace {

constexpr const char* kMark = "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight";
constexpr std::int64_t kMost = 64;  // blocks of a stage, and times that one is wider than another

// What the published files are made of. Source: ComfyUI
// comfy/ldm/lightricks/vae/causal_video_autoencoder.py, VideoVAE.guess_config.
constexpr const char* kFirst = R"({"blocks": [["res_x", 4], ["compress_all", 1], ["res_x_y", 1],
  ["res_x", 3], ["compress_all", 1], ["res_x_y", 1], ["res_x", 3], ["compress_all", 1], ["res_x", 3],
  ["res_x", 4]], "norm_layer": "pixel_norm", "patch_size": 4})";
constexpr const char* kSecond = R"({"encoder_blocks": [["res_x", 4], ["compress_all", {}],
  ["res_x_y", 1], ["res_x", 3], ["compress_all", {}], ["res_x_y", 1], ["res_x", 3],
  ["compress_all", {}], ["res_x", 3], ["res_x", 4]], "decoder_blocks": [
  ["res_x", {"num_layers": 5, "inject_noise": true}],
  ["compress_all", {"residual": true, "multiplier": 2}],
  ["res_x", {"num_layers": 6, "inject_noise": true}],
  ["compress_all", {"residual": true, "multiplier": 2}],
  ["res_x", {"num_layers": 7, "inject_noise": true}],
  ["compress_all", {"residual": true, "multiplier": 2}], ["res_x", 8]],
  "norm_layer": "pixel_norm", "patch_size": 4, "timestep_conditioning": true})";
constexpr const char* kThird = R"({"encoder_blocks": [["res_x", 4],
  ["compress_space_res", {"multiplier": 2}], ["res_x", 6], ["compress_time_res", {"multiplier": 2}],
  ["res_x", 6], ["compress_all_res", {"multiplier": 2}], ["res_x", 2],
  ["compress_all_res", {"multiplier": 2}], ["res_x", 2]], "decoder_blocks": [["res_x", 5],
  ["compress_all", {"residual": true, "multiplier": 2}], ["res_x", 5],
  ["compress_all", {"residual": true, "multiplier": 2}], ["res_x", 5],
  ["compress_all", {"residual": true, "multiplier": 2}], ["res_x", 5]],
  "norm_layer": "pixel_norm", "patch_size": 4, "timestep_conditioning": true})";

Release release_of(const Checkpoint& part) {
  constexpr std::int64_t wide = 1024;
  if (size_of(part, kMark, 0) != wide) return Release::V090;
  return part.has("encoder.down_blocks.1.conv.conv.bias") ? Release::V095 : Release::V091;
}

/// Reads one of the two lists.
class Stages {
 public:
  Stages(const Json& config, const char* name, std::string path)
      : name_(config.contains(name) ? name : "blocks"), path_(std::move(path)) {
    const auto found = config.find(name_);
    if (found == config.end() || !found->is_array() || found->empty() || found->size() > kMost)
      fail(name_, fmt::format("a list of 1 to {} blocks", kMost));
    for (const auto& entry : *found) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() ||
          !(entry[1].is_object() || entry[1].is_number_integer()))
        fail(name_, "pairs of a name and what is said of it");
      entries_.emplace_back(entry[0].get<std::string>(),
                            entry[1].is_object() ? entry[1] : Json{{"num_layers", entry[1]}});
    }
  }

  std::vector<Stage> down(std::int64_t channels) const {
    std::vector<Stage> stages;
    for (const auto& [kind, said] : entries_) {
      auto stage = begun(kind, said, channels);
      const bool folds = kind.ends_with("_res"), widens = folds || kind.ends_with("_x_y");
      if (stage.kind == Stage::Kind::Folded && !folds) stage.kind = Stage::Kind::Strided;
      if (widens) stage.out = channels * multiplier(said, 2);
      if (folds && (stage.out % cells(stage) != 0 || channels * cells(stage) % stage.out != 0))
        fail(name_,
             fmt::format("such that {} channels become {} by '{}'", channels, stage.out, kind));
      channels = stages.emplace_back(stage).out;
    }
    return stages;
  }

  /// The list is written in the order of the encoder's.
  std::vector<Stage> up(std::int64_t channels) const {
    std::vector<Stage> stages;
    for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
      const auto& [kind, said] = *entry;
      auto stage = begun(kind, said, channels);
      const ConfigEntries entries(said, path_);
      if (kind.starts_with("compress_") && kind.find('_') != kind.rfind('_')) unknown(kind);
      stage.noise = entries.flag("inject_noise", false);
      if (stage.noise && stage.kind != Stage::Kind::Residuals)
        fail(name_, fmt::format("such that '{}' takes no noise", kind));
      std::int64_t narrower = 1;
      if (kind == "res_x_y") narrower = multiplier(said, 2);
      if (kind == "compress_all") {
        narrower = multiplier(said, 1);
        stage.residual = entries.flag("residual", false);
      }
      if (channels % narrower != 0 ||
          (stage.residual && (channels % cells(stage) != 0 || cells(stage) % narrower != 0)))
        fail(name_,
             fmt::format("such that '{}' divides {} channels by {}", kind, channels, narrower));
      stage.out = channels / narrower;
      channels = stages.emplace_back(stage).out;
    }
    return stages;
  }

 private:
  static std::int64_t cells(const Stage& stage) { return stage.time * stage.space * stage.space; }

  std::int64_t multiplier(const Json& said, std::int64_t otherwise) const {
    return ConfigEntries(said, path_).whole("multiplier", otherwise, 1, kMost);
  }

  Stage begun(const std::string& kind, const Json& said, std::int64_t channels) const {
    Stage stage{.in = channels, .out = channels};
    if (kind == "res_x") {
      stage.blocks = ConfigEntries(said, path_).whole("num_layers", 1, 1, kMost);
    } else if (kind == "res_x_y") {
      stage.kind = Stage::Kind::Widen;
    } else if (kind.starts_with("compress_")) {
      stage.kind = Stage::Kind::Folded;
      const auto what = kind.substr(kind.find('_') + 1);
      const auto which = what.substr(0, what.find('_'));
      if (which != "time" && which != "space" && which != "all") unknown(kind);
      stage.time = which == "space" ? 1 : 2;
      stage.space = which == "time" ? 1 : 2;
    } else {
      unknown(kind);
    }
    return stage;
  }

  [[noreturn]] void unknown(const std::string& kind) const {
    fail(name_, fmt::format("of blocks that are known, and '{}' is not", kind));
  }
  [[noreturn]] void fail(const std::string& name, const std::string& wanted) const {
    ConfigEntries(Json::object(), path_).fail(name, wanted);
  }

  std::string name_, path_;
  std::vector<std::pair<std::string, Json>> entries_;
};

Edges edges_of(const ConfigEntries& entries, const char* otherwise) {
  const auto text = entries.text("spatial_padding_mode", otherwise);
  if (text != "zeros" && text != "reflect")
    entries.fail("spatial_padding_mode", "'zeros' or 'reflect'");
  return text == "zeros" ? Edges::Zeros : Edges::Reflected;
}

template <class Each>
std::int64_t product(const std::vector<Stage>& stages, Each each) {
  std::int64_t all = 1;
  for (const auto& stage : stages) all *= each(stage);
  return all;
}

}  // namespace

std::int64_t Config::downscale() const {
  return patch * product(up, [](const Stage& stage) { return stage.space; });
}

std::int64_t Config::time_downscale() const {
  return product(up, [](const Stage& stage) { return stage.time; });
}

Checkpoint part_of(const Checkpoint& file) {
  for (const std::string prefix : {"", "vae.", "first_stage_model."})
    if (file.has(prefix + kMark)) return prefix.empty() ? file : file.part(prefix);
  return {};
}

Json published_config(Release release) {
  if (release == Release::V090) return Json::parse(kFirst);
  return Json::parse(release == Release::V091 ? kSecond : kThird);
}

Config config_from(const Json& said, const Ends& ends, const std::string& path) {
  const ConfigEntries entries(said, path);
  Config c;
  constexpr std::int64_t largest_patch = 16;
  c.patch = entries.whole("patch_size", 1, 1, largest_patch);
  c.image_channels = ends.pixels / (c.patch * c.patch);
  c.latent_channels = ends.latent;
  c.encoded_channels = ends.encoded;
  c.down_edges = edges_of(entries, "zeros");
  c.up_edges = edges_of(entries, "reflect");
  c.causal_decoder = entries.flag("causal_decoder", false);
  c.timed = entries.flag("timestep_conditioning", false);
  if (entries.text("norm_layer", "group_norm") != "pixel_norm")
    entries.fail("norm_layer", "'pixel_norm', as in all published files");
  c.down = Stages(said, "encoder_blocks", path).down(ends.encoder);
  c.up = Stages(said, "decoder_blocks", path).up(ends.decoder);
  auto fails = [&](const std::string& why) {
    throw Error(ErrorKind::Shape, path, "holds an autoencoder of LTX-Video " + why);
  };
  if (c.encoded_channels < c.latent_channels)
    fails(fmt::format("whose encoder gives {} channels, and latents have {}", c.encoded_channels,
                      c.latent_channels));
  if (product(c.down, [](const Stage& s) { return s.space; }) !=
          product(c.up, [](const Stage& s) { return s.space; }) ||
      product(c.down, [](const Stage& s) { return s.time; }) != c.time_downscale())
    fails("whose two halves are of different scales");
  return c;
}

Config config_of(const Checkpoint& part) {
  auto said = config_in(part, "vae");
  if (said.empty()) said = published_config(release_of(part));
  auto c = config_from(said,
                       {.pixels = size_of(part, "encoder.conv_in.conv.weight", 1),
                        .encoder = size_of(part, "encoder.conv_in.conv.weight", 0),
                        .encoded = size_of(part, "encoder.conv_out.conv.weight", 0),
                        .latent = size_of(part, "decoder.conv_in.conv.weight", 1),
                        .decoder = size_of(part, "decoder.conv_in.conv.weight", 0)},
                       part.path());
  if (c.timed) c.time_scale = number_in(part, "decoder.timestep_scale_multiplier", c.time_scale);
  return c;
}

}  // namespace distorch::models::ltxv_vae
