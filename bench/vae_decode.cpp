// Decoding clips with the autoencoder of Wan 2.1 (random weights) as VAEDecode does it, group of frames by group of frames:
// seconds a frame on the CPU, and the peak on a simulated card under one budget, which must not depend on the length.
//   bench_vae_decode [--out FOLDER] [--width 96] [--height 64] [--frames 81,241] [--channels 96]
//   bench_vae_decode --serve [...]: says "ready", then decodes a clip of as many frames as each line on standard input
//   names and prints its seconds; bench/peers/vae_decode.py uses it to measure a peer between ours.
#include <ATen/Parallel.h>

#include <iostream>
#include <sstream>

#include "bench/bench.h"
#include "bench/unet_file.h"
#include "distorch/base/log.h"
#include "distorch/device/host_pool.h"
#include "distorch/device/sim/sim.h"
#include "distorch/models/causal_vae/autoencoder.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/vae_coding.h"

namespace {

using namespace distorch;

constexpr std::int64_t kCell = 8, kFramesOfCell = 4, kLatentChannels = 16;

struct Options {
  std::filesystem::path out;
  std::int64_t width = 96, height = 64, channels = 96;
  std::vector<std::int64_t> frames;

  std::string size() const { return fmt::format("{}x{}", width, height); }
  std::filesystem::path file() const {
    return out / fmt::format("wan_vae_{}_bf16.safetensors", channels);
  }
};

/// Wan 2.1's own layers from so many channels on; the published one has 96.
models::causal_vae::Config config_of(std::int64_t channels) {
  using models::causal_vae::Layer;
  using enum Layer::Kind;
  models::causal_vae::Config config;
  const auto a = channels, b = 2 * channels, c = 4 * channels;
  config.first = a;
  config.middle = c;
  config.down = {{Residual, a, a},       {Residual, a, a},       {Resample, a, a}, {Residual, a, b},
                 {Residual, b, b},       {Resample, b, b, true}, {Residual, b, c}, {Residual, c, c},
                 {Resample, c, c, true}, {Residual, c, c},       {Residual, c, c}};
  config.up = {{Residual, c, c}, {Residual, c, c}, {Residual, c, c}, {Resample, c, b, true},
               {Residual, b, c}, {Residual, c, c}, {Residual, c, c}, {Resample, c, b, true},
               {Residual, b, b}, {Residual, b, b}, {Residual, b, b}, {Resample, b, a},
               {Residual, a, a}, {Residual, a, a}, {Residual, a, a}};
  return config;
}

/// The product's own way: ModelCache opens, Engine plans and loads.
class Decoder {
 public:
  Decoder(const Options& options, streaming::EngineOptions engine)
      : options_(options), app_({}, {}, quiet(std::move(engine))) {
    vae_.loaded = app_.models.vae(options.file(), {});
    if (!vae_.loaded) throw std::runtime_error("the file holds no autoencoder");
  }

  /// Seconds that a clip of so many frames takes.
  double decode(std::int64_t frames) {
    auto latent = at::randn({1, kLatentChannels, 1 + (frames - 1) / kFramesOfCell,
                             options_.height / kCell, options_.width / kCell});
    auto start = bench::now_s();
    auto image = nodes::VaeCoding(vae_, app_.engine).decode(latent);
    auto taken = bench::now_s() - start;
    if (image.size(0) != frames || !at::isfinite(image).all().item<bool>())
      throw std::runtime_error("the frames are not what was asked for");
    return taken;
  }
  std::string dtype() const { return c10::toString(vae_.loaded->weights->options().dtype); }

 private:
  static streaming::EngineOptions quiet(streaming::EngineOptions options) {
    options.log_tables = false;
    if (options.default_device.empty()) options.default_device = "cpu";
    return options;
  }
  const Options& options_;
  nodes::App app_;
  nodes::Vae vae_;
};

/// A card of 4 GiB that computes real numbers, of which so much may be used.
streaming::EngineOptions on_a_card(std::int64_t budget) {
  auto rig = parse_rig(R"(
name: bench
devices:
  - {name: "cuda:0", memory: 4GiB, tflops: {default: 10}, memory_bandwidth_GBps: 500}
  - {name: cpu, memory: 16GiB, tflops: {default: 0.1}, memory_bandwidth_GBps: 20}
links:
  - {from: cpu, to: "cuda:0", GBps: 10}
)",
                       "bench rig");
  sim::install(rig, {.mode = sim::Mode::Exec, .race_check = false});
  streaming::EngineOptions options;
  options.rig = rig;
  options.default_device = "sim:0";
  if (budget > 0) options.budgets = {{"sim:0", budget}};
  return options;
}

/// The peak on the card while a clip is decoded.
std::int64_t peak_of(const Options& options, std::int64_t frames, std::int64_t budget) {
  Decoder decoder(options, on_a_card(budget));
  sim::reset_peak(0);
  decoder.decode(frames);
  return sim::memory(0).peak;
}

void measure(const Options& options) {
  bench::Results results("vae_decode", options.out);
  bench::Results::head();
  Decoder decoder(options, {});
  for (auto frames : options.frames)
    results.add(
        fmt::format("Wan 2.1 VAE, {}, {} frames, CPU, {}", options.size(), frames, decoder.dtype()),
        decoder.decode(frames) / static_cast<double>(frames), NAN, "s/frame",
        {{"threads", at::get_num_threads()}});
  constexpr double mb = 1e6;
  // Two thirds of what it would like: part of the weights streams.
  const auto shortest = options.frames.front(), longest = options.frames.back();
  const auto budget = peak_of(options, shortest, 0) * 2 / 3;
  const auto peak = static_cast<double>(peak_of(options, shortest, budget));
  results.add(fmt::format("peak on a card within {} MB, {} frames", budget / 1000000, longest),
              static_cast<double>(peak_of(options, longest, budget)) / mb, peak / mb, "MB",
              {{"peer_is", fmt::format("that of {} frames", shortest)},
               {"budget_MB", static_cast<double>(budget) / mb}});
  results.write();
}

int serve(const Options& options) {
  Decoder decoder(options, {});
  std::cout << "ready " << decoder.dtype() << std::endl;
  for (std::string line; std::getline(std::cin, line);)
    std::cout << decoder.decode(std::stoll(line)) << std::endl;
  return 0;
}

Options options_of(int argc, char** argv) {
  Options options;
  auto number = [&](const char* key, std::int64_t& value) {
    value = std::stoll(bench::option(argc, argv, key, std::to_string(value)));
  };
  options.out = bench::out_folder(argc, argv);
  number("--width", options.width);
  number("--height", options.height);
  number("--channels", options.channels);
  std::stringstream list(bench::option(argc, argv, "--frames", "81,241"));
  for (std::string one; std::getline(list, one, ',');) options.frames.push_back(std::stoll(one));
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  device::set_up_host_memory();
  log::set_up("warning");
  try {
    const auto options = options_of(argc, argv);
    if (!std::filesystem::exists(options.file())) {
      models::causal_vae::CausalAutoencoder vae(config_of(options.channels));
      bench::write_weights(options.file(), vae.manifest(), at::kBFloat16);
    }
    if (argc > 1 && std::string(argv[1]) == "--serve") return serve(options);
    measure(options);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_vae_decode: {}\n", error.what());
    return 1;
  }
}
