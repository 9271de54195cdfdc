// One step of a UNet of Stable Diffusion 1.5's or SDXL's size (random weights, fp16 file) on the CPU,
// as the product runs it: cond and uncond of a 512x512 picture in one batch. Seconds a step, and the
// peak of the process's memory.
//   bench_unet_step [--model sd15|sdxl] [--out FOLDER] [--steps 3]
//   bench_unet_step --serve [--model ...]: says "ready", then does a step for every line on standard input and
//   prints its seconds;
//     bench/peers/unet_step.py uses it to measure peers between our steps.
#include <ATen/Parallel.h>

#include <iostream>

#include "bench/bench.h"
#include "bench/unet_file.h"
#include "distorch/base/log.h"
#include "distorch/device/host_pool.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/sampled_model.h"

namespace {

using namespace distorch;

constexpr std::int64_t batch = 2, cells = 64, tokens = 77;

/// The product's own way: ModelCache opens, Engine plans and loads.
class Model {
 public:
  explicit Model(const std::filesystem::path& file) : app_({}, {}, engine_options()) {
    loaded_ = app_.models.diffusion(file, {.compute = "cpu"});
    nodes::SampledModel model({.loaded = loaded_});
    sampling::Conditioning none;
    model.prepare(app_.engine, {{1, 4, cells, cells}, 20, 7.0, none, none});
    input_ =
        models::blank_inputs(loaded_->network->inputs(), {batch, {cells, cells}, tokens}, at::kCPU);
    const auto blank = input_;
    for (const auto& [name, tensor] : blank.tensors())
      input_.set(name, name == "timestep" ? at::full_like(tensor, 500.0) : at::randn_like(tensor));
  }

  double step() {
    auto start = bench::now_s();
    result_ = loaded_->network->apply(input_);
    return bench::now_s() - start;
  }
  bool finite() const { return at::isfinite(result_).all().item<bool>(); }
  streaming::StreamedModel& weights() { return *loaded_->weights; }
  std::int64_t weight_bytes() const {
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < loaded_->weights->block_count(); ++i)
      bytes += loaded_->weights->resident_bytes(static_cast<int>(i));
    return bytes;
  }
  std::int64_t activation_bytes() const {
    return app_.engine.placement_of(*loaded_->weights)->activation_bytes;
  }
  std::string dtype() const { return c10::toString(loaded_->weights->options().dtype); }

 private:
  static streaming::EngineOptions engine_options() {
    streaming::EngineOptions options;
    options.default_device = "cpu";
    options.log_tables = false;
    return options;
  }
  nodes::App app_;
  std::shared_ptr<nodes::LoadedDiffusion> loaded_;
  models::Inputs input_;
  at::Tensor result_;
};

int serve(const std::filesystem::path& file) {
  Model model(file);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) std::cout << model.step() << std::endl;
  return 0;
}

struct Kind {
  std::string name, title;
  models::sd::UNetConfig config;
};

Kind kind_named(const std::string& name) {
  if (name == "sdxl") return {name, "SDXL", bench::sdxl_config()};
  if (name == "sd15") return {name, "SD 1.5", bench::sd_config()};
  throw std::runtime_error("--model is sd15 or sdxl, not " + name);
}

/// "unet_step" of SD 1.5, "unet_step_sdxl".
std::string results_of(const Kind& kind) {
  return kind.name == "sd15" ? "unet_step" : "unet_step_" + kind.name;
}

int measure(const std::filesystem::path& out, const std::filesystem::path& file, const Kind& kind,
            int steps) {
  bench::Results results(results_of(kind), out);
  auto before = bench::process_bytes("VmRSS");
  bench::reset_peak();
  auto start = bench::now_s();
  Model model(file);
  auto opened_s = bench::now_s() - start;
  model.step();
  std::vector<double> seconds;
  for (int i = 0; i < steps; ++i) seconds.push_back(model.step());
  if (!model.finite()) throw std::runtime_error("the UNet's output has NaNs");
  bench::Results::head();
  constexpr double gb = 1e9;
  auto name = fmt::format("{} UNet, 512x512, cond + uncond, CPU, {}", kind.title, model.dtype());
  results.add(name + ", step", bench::median(seconds), NAN, "s",
              {{"threads", at::get_num_threads()}});
  double allowed = 1.1 * static_cast<double>(model.weight_bytes()) +
                   static_cast<double>(model.activation_bytes());
  auto peak = static_cast<double>(bench::process_bytes("VmHWM"));
  results.add(name + ", peak RSS", peak / gb, allowed / gb, "GB",
              {{"peer_is", "1.1 x weights in the compute dtype + activations foreseen"},
               {"weights_GB", static_cast<double>(model.weight_bytes()) / gb},
               {"activations_GB", static_cast<double>(model.activation_bytes()) / gb},
               {"process_before_GB", static_cast<double>(before) / gb}});
  results.add("open, plan and convert the fp16 file", opened_s, NAN, "s");
  results.write();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  device::set_up_host_memory();
  log::set_up("warning");
  try {
    auto out = bench::out_folder(argc, argv);
    const auto kind = kind_named(bench::option(argc, argv, "--model", "sd15"));
    auto file = out / (kind.name + "_unet_fp16.safetensors");
    const bool makes = argc > 1 && std::string(argv[1]) == "--make";
    if (makes) return bench::make_unet_file(file, at::kHalf, kind.config), 0;
    // In a process of its own, so that making the file does not count as our memory.
    if (!std::filesystem::exists(file))
      bench::run_self({"--make", "--model", kind.name, "--out", out.string()});
    if (argc > 1 && std::string(argv[1]) == "--serve") return serve(file);
    return measure(out, file, kind, std::stoi(bench::option(argc, argv, "--steps", "3")));
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_unet_step: {}\n", error.what());
    return 1;
  }
}
