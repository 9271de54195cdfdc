#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/ltxv_vae/autoencoder.h"
#include "distorch/models/vae/clip.h"
#include "distorch/models/vae/tiled_video.h"
#include "tests/models/with_config.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

/// The seeded weights of a dump, with deviations above 0 and the published scale of levels
/// (make_ltxv_vae.py).
std::map<std::string, Tensor> tensors_of(const std::string& name) {
  auto tensors = tiny_tensors({name});
  auto& spread = tensors.at("per_channel_statistics.std-of-means");
  spread = spread.abs() + 0.5;
  if (auto scale = tensors.find("decoder.timestep_scale_multiplier"); scale != tensors.end())
    scale->second = at::full({}, 1000.0);
  return tensors;
}

struct Loaded {
  explicit Loaded(const std::string& name, const std::string& prefix = "")
      : file(below(prefix, tensors_of(name)), config_of_dump(name)),
        found(find_vae(*file)),
        vae(found.make()) {
    check_complete(vae->manifest(), found.part, "autoencoder");
    source.emplace(vae->manifest(), found.part, at::kFloat);
  }
  static std::map<std::string, Tensor> below(const std::string& prefix,
                                             const std::map<std::string, Tensor>& tensors) {
    std::map<std::string, Tensor> result;
    for (const auto& [name, tensor] : tensors) result[prefix + name] = tensor;
    return result;
  }
  CheckpointWithConfig file;
  VaePart found;
  std::unique_ptr<VaeNetwork> vae;
  std::optional<TwiceSource> source;
};

Tensor clip_of(std::int64_t frames, std::int64_t side) {
  return tiny_weight("clip " + std::to_string(frames), {1, 3, frames, side, side});
}
Tensor latent_of(std::int64_t frames) {
  return tiny_weight("latent " + std::to_string(frames), {1, 128, frames, 2, 2});
}
Tensor thinned(const Tensor& frames) {
  const auto step = frames.size(-1) / 16;
  return frames.slice(3, 0, {}, step).slice(4, 0, {}, step);
}

void check_parity(const std::string& name, const std::string& prefix = "") {
  CAPTURE(name);
  Loaded l(name, prefix);
  Dump dump(name);
  const auto side = 2 * l.vae->shape().downscale;
  for (std::int64_t frames : {1, 9}) {
    CAPTURE(frames);
    CHECK(difference(l.vae->encode_mean(clip_of(frames, side)),
                     dump["encode/" + std::to_string(frames)]) < 1e-4);
  }
  for (std::int64_t frames : {1, 3}) {
    CAPTURE(frames);
    CHECK(difference(thinned(l.vae->decode_pixels(latent_of(frames))),
                     dump["decode/" + std::to_string(frames)]) < 1e-4);
  }
  CHECK(l.source->runs.size() == l.vae->manifest().blocks().size());
}

}  // namespace

TEST_CASE("ltxv autoencoder: clips of several lengths as ComfyUI, in all forms") {
  check_parity("ltxv_vae", "vae.");
  check_parity("ltxv_vae_timed");
  check_parity("ltxv_vae_newer", "first_stage_model.");
}

TEST_CASE("ltxv autoencoder: its noise is that of every clip of the size") {
  Loaded l("ltxv_vae_timed");
  auto latent = latent_of(3), other = at::randn_like(latent);
  auto whole = l.vae->decode_pixels(latent);
  CHECK(at::equal(l.vae->decode_pixels(at::cat({other, latent})).narrow(0, 1, 1), whole));
  CHECK(at::equal(vae::decode_clips(*l.vae, at::cat({other, latent}), at::kCPU)[1], whole[0]));
  CHECK(vae::decode_groups(l.vae->shape(), 9) == 1);
}

TEST_CASE("ltxv autoencoder: in tiles that see enough of each other, much as whole") {
  Loaded l("ltxv_vae");
  auto latent = tiny_weight("large", {1, 128, 2, 4, 4});
  auto tiled = vae::decode_tiled_video(
      *l.vae, latent, {.side = 3, .overlap = 2, .frames = 9999, .frame_overlap = 1});
  auto whole = l.vae->decode_pixels(latent);
  CHECK(tiled.sizes() == whole.sizes());
  // A convolution sees one cell beyond: what differs is near the edges of tiles.
  CHECK((tiled - whole).abs().mean().item<double>() < 0.5 * whole.abs().mean().item<double>());
  CHECK(difference(vae::decode_tiled_video(*l.vae, latent, {.side = 4, .frames = 2}), whole) ==
        0.0);
}

TEST_CASE("ltxv autoencoder: the published ones by their shapes alone") {
  auto published = [](std::int64_t width, const char* mark) {
    weights::Checkpoint file;
    auto add = [&](const char* name, std::vector<std::int64_t> shape) {
      file.add(name, {.dtype = formats::DType::F16, .shape = std::move(shape)});
    };
    add("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight", {width, width, 3, 3, 3});
    add("encoder.conv_in.conv.weight", {128, 48, 3, 3, 3});
    add("encoder.conv_out.conv.weight", {129, 512, 3, 3, 3});
    add("decoder.conv_in.conv.weight", {width, 128, 3, 3, 3});
    add(mark, {512});
    return ltxv_vae::config_of(ltxv_vae::part_of(file));
  };
  const char* newest = "encoder.down_blocks.1.conv.conv.bias";
  const char* plain = "encoder.down_blocks.1.conv.bias";
  auto first = published(512, plain), second = published(1024, plain),
       third = published(1024, newest);
  for (const auto& config : {first, second, third}) {
    CHECK(config.downscale() == 32);
    CHECK(config.time_downscale() == 8);
    CHECK(config.latent_channels == 128);
    CHECK(config.image_channels == 3);
  }
  CHECK_FALSE(first.timed);
  CHECK(second.timed);
  CHECK(second.up.back().noise);
  CHECK_FALSE(third.up.back().noise);
  CHECK(parameters(ltxv_vae::Autoencoder(first).manifest()) == 419'193'905);
  CHECK(parameters(ltxv_vae::Autoencoder(second).manifest()) == 934'976'689);
  CHECK(parameters(ltxv_vae::Autoencoder(third).manifest()) == 1'246'913'777);
}

TEST_CASE("ltxv autoencoder: clips and latents that do not fit") {
  Loaded l("ltxv_vae");
  CHECK_THROWS_WITH_AS(l.vae->decode_pixels(at::zeros({1, 16, 1, 2, 2})),
                       doctest::Contains("128 channels"), Error);
  CHECK_THROWS_WITH_AS(l.vae->encode_mean(at::zeros({1, 3, 1, 40, 32})),
                       doctest::Contains("multiples of 32"), Error);
  CHECK_THROWS_WITH_AS(l.vae->encode_mean(at::zeros({1, 3, 4, 32, 32})),
                       doctest::Contains("1 + 8 · n frames (1, 9, 17, ...), got 4"), Error);
}

TEST_CASE("ltxv autoencoder: what a file says of itself, and is not so") {
  auto tensors = tensors_of("ltxv_vae");
  auto said = [&](const std::string& blocks, const std::string& more = "") {
    CheckpointWithConfig file(tensors, R"({"vae": {"norm_layer": "pixel_norm", "patch_size": 4, )" +
                                           more + R"("blocks": )" + blocks + "}}");
    find_vae(*file).make();
  };
  auto fails = [&](const std::string& sentence, const std::string& blocks,
                   const std::string& more = "") {
    CHECK_THROWS_WITH_AS(said(blocks, more), doctest::Contains(sentence.c_str()), Error);
  };
  const std::string right =
      R"([["compress_all", 1], ["compress_all", 1], ["res_x_y", 1], ["compress_all", 1],
    ["res_x", 1]])";
  said(right);
  fails("'blocks' should be a list of 1 to 64 blocks", "[]");
  fails("'blocks' should be pairs", R"([["res_x"]])");
  fails("'attn_x' is not", R"([["attn_x", 1]])");
  fails("'num_layers' should be a whole number of 1 to 64", R"([["res_x", 1000000]])");
  fails("'multiplier' should be", R"([["res_x_y", {"multiplier": 0}]])");
  fails("divides 256 channels by 3", R"([["res_x_y", {"multiplier": 3}]])");
  fails("'norm_layer' should be 'pixel_norm'", right, R"("norm_layer": "group_norm", )");
  fails("'spatial_padding_mode' should be", right, R"("spatial_padding_mode": "circular", )");
  fails("halves are of different scales", right, R"("decoder_blocks": [["res_x", 1]], )");
  tensors.erase("decoder.conv_out.conv.bias");
  CheckpointWithConfig file(tensors, config_of_dump("ltxv_vae"));
  auto found = find_vae(*file);
  CHECK_THROWS_WITH_AS(check_complete(found.make()->manifest(), found.part, "autoencoder"),
                       doctest::Contains("decoder.conv_out.conv.bias"), Error);
}
