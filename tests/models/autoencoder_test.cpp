#include "distorch/models/vae/autoencoder.h"

#include "distorch/base/error.h"
#include "distorch/models/vae/tiled.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::vae;
using at::Tensor;

namespace {

struct Loaded {
  Loaded()
      : file(tiny_tensors({"vae"})),
        part(vae_part(*file)),
        vae(vae_config(part)),
        source(vae.manifest(), part, at::kFloat) {
    check_complete(vae.manifest(), part, "autoencoder");
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  Autoencoder vae;
  TwiceSource source;
};

}  // namespace

TEST_CASE("autoencoder: every stage as diffusers computes it") {
  Loaded l;
  Dump dump("vae");
  int compared = 0;
  auto probe = [&](const std::string& stage, const Tensor& output) {
    CAPTURE(stage);
    if (!dump.has(stage)) return;  // too large for the dump
    CHECK(difference(output, dump[stage]) < 1e-4);
    ++compared;
  };
  CHECK(difference(l.vae.decode(dump["z"], probe), dump["decoded"]) < 1e-4);
  auto posterior = l.vae.encode(dump["image"], probe);
  CHECK(difference(posterior.mean, dump["mean"]) < 1e-4);
  CHECK(difference(posterior.logvar, dump["logvar"]) < 1e-4);
  CHECK(compared == 8);
  CHECK(l.source.runs.size() == l.vae.manifest().blocks().size());
  auto noise = at::randn(posterior.mean.sizes());
  auto deviation = at::exp(posterior.logvar).sqrt();
  CHECK(difference(posterior.sample(noise), posterior.mean + deviation * noise) < 1e-6);
  CHECK_THROWS_WITH_AS(l.vae.encode(at::zeros({1, 3, 20, 16})), doctest::Contains("multiples of 8"),
                       Error);
  CHECK_THROWS_WITH_AS(l.vae.decode(at::zeros({1, 16, 4, 4})), doctest::Contains("got 16"), Error);
}

TEST_CASE("autoencoder: size of the real one, told by shapes alone") {
  Autoencoder vae(VaeConfig{});
  CHECK(parameters(vae.manifest()) == 83'653'863);
  auto read = vae_config(vae_part(shapes_only(vae.manifest(), "first_stage_model.")));
  CHECK(read.channels == VaeConfig{}.channels);
  CHECK(read.res_blocks == 2);
  CHECK(read.quant);
  CHECK(read.downscale() == 8);
}

TEST_CASE("autoencoder: three levels and no quant convolutions") {
  VaeConfig c;
  c.channels = {32, 64, 96};
  c.res_blocks = 1;
  c.quant = false;
  Autoencoder vae(c);
  auto read = vae_config(vae_part(shapes_only(vae.manifest())));
  CHECK(read.channels == c.channels);
  CHECK(read.res_blocks == 1);
  CHECK_FALSE(read.quant);
  CHECK(read.downscale() == 4);
  test::PlainSource source(vae.manifest(),
                           [](const auto& w) { return tiny_weight(w.name, w.shape); });
  CHECK(vae.decode(at::randn({1, 4, 3, 2})).sizes() == at::IntArrayRef({1, 3, 12, 8}));
}

TEST_CASE("autoencoder: 16 channels without quant convolutions (SD 3, FLUX), in every file") {
  auto tensors = tiny_tensors({"vae_flux"});
  Dump dump("vae_flux");
  auto check = [&](const std::map<std::string, at::Tensor>& stored) {
    TemporaryCheckpoint file(stored);
    auto part = vae_part(*file);
    Autoencoder vae(vae_config(part));
    check_complete(vae.manifest(), part, "autoencoder");
    test::PlainSource source(vae.manifest(), part, at::kFloat);
    CHECK(vae.shape().latent_channels == 16);
    CHECK(vae.shape().downscale == 4);
    CHECK(difference(vae.decode_pixels(dump["z"]), dump["decoded"]) < 1e-4);
    CHECK(difference(vae.encode_mean(dump["image"]), dump["mean"]) < 1e-4);
  };
  check(tensors);
  for (std::string prefix : {"vae.", "first_stage_model."}) {
    std::map<std::string, at::Tensor> inside = {
        {"model.diffusion_model.img_in.weight", at::ones({1})}};
    for (const auto& [name, tensor] : tensors) inside[prefix + name] = tensor;
    check(inside);
  }
  std::map<std::string, at::Tensor> renamed;
  auto replace = [](std::string& name, const std::string& from, const std::string& to) {
    if (auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
  };
  for (const auto& [original, stored] : tensors) {
    auto name = original;
    auto tensor = stored;
    if (name.find("attn_1") != std::string::npos && tensor.dim() == 4)
      tensor = tensor.flatten(1).contiguous();
    for (int level = 0; level < 3; ++level) {
      auto here = std::to_string(level), there = std::to_string(2 - level);
      replace(name, ".down." + here + ".block.", ".down_blocks." + here + ".resnets.");
      replace(name, ".down." + here + ".downsample.", ".down_blocks." + here + ".downsamplers.0.");
      replace(name, ".up." + here + ".block.", ".up_blocks." + there + ".resnets.");
      replace(name, ".up." + here + ".upsample.", ".up_blocks." + there + ".upsamplers.0.");
    }
    replace(name, ".mid.block_1.", ".mid_block.resnets.0.");
    replace(name, ".mid.block_2.", ".mid_block.resnets.1.");
    replace(name, ".mid.attn_1.norm.", ".mid_block.attentions.0.group_norm.");
    replace(name, ".mid.attn_1.proj_out.", ".mid_block.attentions.0.to_out.0.");
    replace(name, ".mid.attn_1.", ".mid_block.attentions.0.to_");
    replace(name, ".nin_shortcut.", ".conv_shortcut.");
    replace(name, ".norm_out.", ".conv_norm_out.");
    renamed[name] = tensor;
  }
  check(renamed);
}

TEST_CASE("autoencoder: FLUX.2, whose latent is 2x2 cells normalised by the training") {
  auto tensors = tiny_tensors({"vae_flux2"});
  tensors["bn.running_var"].add_(1.0);
  TemporaryCheckpoint file(tensors);
  auto part = vae_part(*file);
  Autoencoder vae(vae_config(part));
  check_complete(vae.manifest(), part, "autoencoder");
  TwiceSource source(vae.manifest(), part, at::kFloat);
  Dump dump("vae_flux2");
  CHECK(vae.shape().latent_channels == 128);
  CHECK(vae.shape().downscale == 8);
  CHECK(difference(vae.decode_pixels(dump["latent"]), dump["decoded"]) < 1e-4);
  CHECK(difference(vae.encode_mean(dump["image"]), dump["mean"]) < 1e-4);
  CHECK_THROWS_WITH_AS(vae.decode_pixels(at::zeros({1, 32, 2, 2})),
                       doctest::Contains("128 channels, got 32"), Error);
  CHECK_THROWS_WITH_AS(vae.encode_mean(at::zeros({1, 3, 12, 16})),
                       doctest::Contains("multiples of 8"), Error);
}

TEST_CASE("autoencoder: a decoder of other widths than the encoder's") {
  VaeConfig c;
  c.channels = {64, 96, 96};
  c.decoder_channels = {32, 64, 64};
  Autoencoder vae(c);
  auto read = vae_config(vae_part(shapes_only(vae.manifest(), "vae.")));
  CHECK(read.channels == c.channels);
  CHECK(read.decoder_channels == c.decoder_channels);
  test::PlainSource source(vae.manifest(),
                           [](const auto& w) { return tiny_weight(w.name, w.shape); });
  auto latent = vae.encode_mean(at::rand({1, 3, 8, 12}));
  CHECK(vae.decode_pixels(latent).sizes() == at::IntArrayRef({1, 3, 8, 12}));
}

TEST_CASE("autoencoder: diffusers names, old and new spellings of attention") {
  Autoencoder vae(VaeConfig{});
  const std::vector<std::pair<std::string, std::string>> known = {
      {"encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
       "encoder.down.1.block.0.nin_shortcut.weight"},
      {"encoder.down_blocks.2.downsamplers.0.conv.weight", "encoder.down.2.downsample.conv.weight"},
      {"encoder.mid_block.resnets.1.norm1.weight", "encoder.mid.block_2.norm1.weight"},
      {"encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"},
      {"decoder.mid_block.attentions.0.query.weight", "decoder.mid.attn_1.q.weight"},
      {"decoder.mid_block.attentions.0.group_norm.weight", "decoder.mid.attn_1.norm.weight"},
      {"decoder.up_blocks.0.resnets.0.norm1.weight", "decoder.up.3.block.0.norm1.weight"},
      {"decoder.up_blocks.3.resnets.2.conv2.weight", "decoder.up.0.block.2.conv2.weight"},
      {"decoder.up_blocks.1.upsamplers.0.conv.weight", "decoder.up.2.upsample.conv.weight"},
      {"decoder.conv_norm_out.weight", "decoder.norm_out.weight"},
      {"decoder.conv_in.weight", "decoder.conv_in.weight"},
      {"quant_conv.weight", "quant_conv.weight"},
  };
  weights::Checkpoint file;
  auto shapes = shapes_only(vae.manifest());
  for (const auto& [theirs, ours] : known) {
    auto stored = *shapes.find(ours);
    if (theirs.find(".attentions.") != std::string::npos)
      stored.shape.resize(std::min<std::size_t>(2, stored.shape.size()));
    file.add(theirs, stored);
  }
  file.add("decoder.up_blocks.2.resnets.0.conv1.weight", {.shape = {256, 512, 3, 3}});
  auto part = vae_part(file);
  for (const auto& [theirs, ours] : known) {
    CAPTURE(theirs);
    REQUIRE(part.has(ours));
    CHECK(part.shape(ours) == shapes.shape(ours));
  }
}

TEST_CASE("tiles: a function that works pixel by pixel is not disturbed") {
  auto image = at::randn({2, 3, 70, 45});
  auto twice = [](const Tensor& t) {
    return at::upsample_nearest2d(t, {2 * t.size(2), 2 * t.size(3)});
  };
  int tiles = 0;
  TileSize tile{32, 24, 8};
  auto out = tiled_scale(image, twice, tile, {2.0, 3}, [&] { ++tiles; });
  CHECK(difference(out, twice(image)) < 1e-6);
  CHECK(tiles == 2 * count_tiles(45, 70, tile));
  CHECK(count_tiles(45, 70, tile) == 2 * 4);
  CHECK(count_tiles(32, 24, tile) == 1);
  auto mean = [](const Tensor& t) { return at::avg_pool2d(t, {8, 8}); };
  auto small =
      tiled_scale(image.narrow(2, 0, 64).narrow(3, 0, 40), mean, {32, 32, 16}, {1.0 / 8, 3});
  CHECK(difference(small, mean(image.narrow(2, 0, 64).narrow(3, 0, 40))) < 1e-6);
}

TEST_CASE("tiles: decoding and encoding as ComfyUI does") {
  Loaded l;
  Dump dump("nodes_vae");
  auto latent = weights::mapped_tensor(
      *open_checkpoint(parity_dir() / "inputs" / "random.latent").find("latent_tensor"));
  auto picture = [](const Tensor& t) { return ((t + 1) / 2).clamp(0, 1).movedim(1, -1); };
  CHECK(difference(picture(l.vae.decode(latent)), dump["decode/image"]) < 1e-4);
  std::int64_t last = 0, total = 0;
  // The node gives sides in pixels and caps the overlap at a quarter of the tile: 96, 32 -> 12, 3
  // cells.
  auto tiled = decode_tiled(l.vae, latent, {12, 12, 3},
                            [&](auto done, auto all) { last = done, total = all; });
  CHECK(difference(picture(tiled), dump["decode_tiled_96_32/image"]) < 1e-4);
  CHECK(last == total);
  CHECK(total > 3);
  CHECK(difference(picture(decode_tiled(l.vae, latent, {8, 8, 2})),
                   dump["decode_tiled_64_64/image"]) < 1e-4);
  CHECK(difference(picture(decode_tiled(l.vae, latent, {8, 8, 0})),
                   dump["decode_tiled_64_0/image"]) < 1e-4);
  CHECK_THROWS_WITH_AS(decode_tiled(l.vae, latent, {8, 8, 4}), doctest::Contains("no room"), Error);
}
