// How long planning takes and how much memory it costs: from opening the file (header only) to the
// placement of every block and the predicted step, for a video transformer of 14B weights and for
// Stable Diffusion 1.5 and 2.1. The files are hollow: a true header and no weights, because none
// are read.
//   bench_plan_speed [--out FOLDER]
#include "bench/bench.h"
#include "bench/unet_file.h"
#include "distorch/base/log.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/sampled_model.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/profile.h"

namespace {

using namespace distorch;

struct VideoConfig {
  std::int64_t blocks = 40, width = 5120, heads = 40, ffn = 13824, text = 4096, text_tokens = 512,
               patch = 64;
  std::int64_t tokens = 75'600;  // 81 frames of 1280x720
};

/// A video transformer: self-attention over all tokens, cross-attention to the text, feed-forward,
/// shifts and scales from the timestep. The arithmetic of the 14B models of 2025, made of the
/// layers in nn/.
class VideoTransformer {
 public:
  VideoTransformer(weights::Manifest& manifest, const VideoConfig& config) : config_(config) {
    weights::Scope root(manifest);
    auto in = (root / "embed").block();
    embed_ = weights::Block(in);
    patch_.emplace_back(in / "patch", config.patch, config.width);
    patch_.emplace_back(in / "text.0", config.text, config.width);
    patch_.emplace_back(in / "text.2", config.width, config.width);
    for (int i = 0; i < config.blocks; ++i)
      layers_.emplace_back((root / "blocks" / i).block(), config);
    auto out = (root / "head").block();
    head_ = weights::Block(out);
    patch_.emplace_back(out / "head", config.width, config.patch);
  }

  at::Tensor apply(const at::Tensor& latent, const at::Tensor& text) const {
    auto embedded = embed_.run({latent, text}, [&](const weights::Tensors& in) -> weights::Tensors {
      return {patch_[0](in[0]), patch_[2](nn::gelu(patch_[1](in[1])))};
    });
    auto x = embedded[0];
    for (const auto& layer : layers_) x = layer.apply(x, embedded[1], config_);
    return head_.run1({x}, [&](const weights::Tensors& in) { return patch_[3](in[0]); });
  }

 private:
  struct Layer {
    Layer(const weights::Scope& scope, const VideoConfig& c)
        : block(scope),
          modulation(scope.weight("modulation", {6, c.width})),
          norm(scope / "norm3", c.width),
          up(scope / "ffn.0", c.width, c.ffn),
          down(scope / "ffn.2", c.ffn, c.width) {
      for (const char* part : {"self_attn", "cross_attn"})
        for (const char* name : {"q", "k", "v", "o"})
          matrices.emplace_back(scope / part / name, c.width, c.width);
    }
    at::Tensor apply(const at::Tensor& tokens, const at::Tensor& text, const VideoConfig& c) const {
      return block.run1({tokens, text}, [&](const weights::Tensors& in) {
        auto x = in[0];
        const auto& shift = modulation.dense();
        auto y = at::layer_norm(x, {c.width}) * shift[1] + shift[0];
        y = nn::attention(matrices[0](y), matrices[1](y), matrices[2](y),
                          {.heads = c.heads, .mask = {}});
        x = x + matrices[3](y) * shift[2];
        y = norm(x);
        y = nn::attention(matrices[4](y), matrices[5](in[1]), matrices[6](in[1]),
                          {.heads = c.heads, .mask = {}});
        x = x + matrices[7](y);
        y = at::layer_norm(x, {c.width}) * shift[4] + shift[3];
        return x + down(nn::gelu(up(y))) * shift[5];
      });
    }
    weights::Block block;
    weights::Weight modulation;
    std::vector<nn::Linear> matrices;  // q, k, v, o of both attentions
    nn::LayerNorm norm;
    nn::Linear up, down;
  };

  VideoConfig config_;
  weights::Block embed_, head_;
  std::vector<nn::Linear> patch_;
  std::vector<Layer> layers_;
};

streaming::EngineOptions planning_only() {
  streaming::EngineOptions options;
  options.plan_only = true;
  options.log_tables = false;
  options.rig =
      read_rig(std::filesystem::path(DISTORCH_SOURCE_DIR) / "rigs" / "rtx3090_cpu_x16_pcie4.yaml");
  return options;
}

struct Outcome {
  double seconds = 0, step_s = 0;
  std::int64_t memory = 0, blocks = 0, bytes = 0;
};

template <class Plan>
Outcome timed(Plan plan) {
  auto before = bench::process_bytes("VmRSS");
  bench::reset_peak();
  auto start = bench::now_s();
  Outcome outcome = plan();
  outcome.seconds = bench::now_s() - start;
  outcome.memory = bench::process_bytes("VmHWM") - before;
  return outcome;
}

Outcome outcome_of(const streaming::Engine& engine) {
  const auto& run = engine.planned_runs().back();
  Outcome outcome;
  outcome.step_s = placement::Timeline(run.system, run.blocks).step_s(run.placement);
  outcome.blocks = static_cast<std::int64_t>(run.blocks.blocks.size());
  outcome.bytes = run.blocks.bytes();
  return outcome;
}

Outcome plan_video(const std::filesystem::path& file) {
  return timed([&] {
    VideoConfig config;
    weights::Manifest manifest;
    VideoTransformer network(manifest, config);
    weights::Checkpoint checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(file)));
    streaming::Engine engine(planning_only());
    auto model = std::make_shared<streaming::StreamedModel>(
        manifest, checkpoint,
        streaming::StreamedOptions{
            .name = "video 14B", .compute = "cuda:0", .dtype = at::kBFloat16});
    engine.add(model, {}, true);
    streaming::RunNeeds needs;
    needs.steps = 30;
    needs.profile = [&](const RigDevice& compute) {
      weights::Manifest fresh;
      VideoTransformer twin(fresh, config);
      return streaming::profile_model(*model, fresh, compute, [&](at::Device device) {
        auto options = at::TensorOptions().device(device).dtype(at::kBFloat16);
        twin.apply(at::empty({1, config.tokens, config.patch}, options),
                   at::empty({1, config.text_tokens, config.text}, options));
      });
    };
    auto use = engine.prepare(model, needs);
    return outcome_of(engine);
  });
}

Outcome plan_unet(const std::filesystem::path& file) {
  return timed([&] {
    nodes::App app({}, {}, planning_only());
    nodes::SampledModel model({.loaded = app.models.diffusion(file, {})});
    sampling::Conditioning none;
    model.prepare(app.engine, {{1, 4, 64, 64}, 20, 7.0, none, none});
    return outcome_of(app.engine);
  });
}

/// One model a process, so that memory is that of a first plan.
int part(const std::string& what, const std::filesystem::path& out) {
  auto file = out / ("hollow_" + what + ".safetensors");
  {
    weights::Manifest manifest;
    if (what == "video") {
      VideoTransformer network(manifest, {});
      bench::write_hollow(file, manifest, "BF16", 2);
    } else {
      models::sd::UNet unet(bench::sd_config(what == "sd21" ? 2 : 1));
      bench::write_hollow(file, unet.manifest(), "F16", 2);
    }
  }
  at::randn({64, 64}).mm(at::randn({64, 64}));  // the idle process has its threads and kernels
  auto outcome = what == "video" ? plan_video(file) : plan_unet(file);
  std::filesystem::remove(file);
  fmt::print("{}\n", bench::Json{{"seconds", outcome.seconds},
                                 {"step_s", outcome.step_s},
                                 {"memory", outcome.memory},
                                 {"blocks", outcome.blocks},
                                 {"bytes", outcome.bytes}}
                         .dump());
  return 0;
}

int run(const std::filesystem::path& out) {
  bench::Results results("plan_speed", out);
  bench::Results::head();
  bool good = true;
  for (const auto& [what, name] : {std::pair{"video", "video transformer 14B, 75,600 tokens"},
                                   {"sd15", "SD 1.5 UNet"},
                                   {"sd21", "SD 2.1 UNet"}}) {
    auto answer = bench::Json::parse(bench::run_self({"--part", what, "--out", out.string()}));
    constexpr double allowed_s = 0.5, allowed_bytes = 50e6;
    double seconds = answer["seconds"], memory = answer["memory"];
    results.add(fmt::format("{}: open and plan", name), seconds, allowed_s, "s",
                {{"peer_is", "limit"},
                 {"blocks", answer["blocks"]},
                 {"weights_GB", answer["bytes"].get<double>() / 1e9},
                 {"predicted_step_s", answer["step_s"]}});
    results.add(fmt::format("{}: memory over the idle process", name), memory / 1e6,
                allowed_bytes / 1e6, "MB", {{"peer_is", "limit"}});
    good = good && seconds < allowed_s && memory < allowed_bytes;
  }
  results.write();
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  log::set_up("warning");
  try {
    auto out = bench::out_folder(argc, argv);
    auto what = bench::option(argc, argv, "--part");
    return what.empty() ? run(out) : part(what, out);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_plan_speed: {}\n", error.what());
    return 1;
  }
}
