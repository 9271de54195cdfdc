#include "distorch/nodes/sample_run.h"

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/media/image.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/next_run.h"
#include "distorch/sampling/noise.h"

namespace distorch::nodes {

using graph::Call;
using sampling::Conditioning;
using sampling::GuiderRule;

namespace {

/// The shape that a latent will have in the run. Error(Shape) where it is not one of the model's.
std::vector<std::int64_t> latent_shape(const sampling::X0Model& model, const at::Tensor& latent,
                                       const std::string& place) {
  auto shape = latent.sizes().vec();
  if (shape.size() == 4 && model.latent_dimensions() == 3) shape.insert(shape.begin() + 2, 1);
  if (static_cast<int>(shape.size()) != 2 + model.latent_dimensions())
    throw Error(ErrorKind::Shape, place,
                model.latent_dimensions() == 2
                    ? "this model works on pictures: the latent needs batch, channels, height and "
                      "width"
                    : "this model works on video: the latent needs batch, channels, frames, height "
                      "and width");
  return shape;
}

RunShape shape_of(const sampling::Guider& prompts, const std::vector<std::int64_t>& latent,
                  int steps) {
  constexpr double with_negative = 2.0;
  const bool plain = prompts.rule.kind == GuiderRule::Kind::Cfg;
  return {.latent = latent,
          .steps = steps,
          .cfg = plain ? prompts.rule.cfg : with_negative,
          .positive = prompts.positive,
          .negative = prompts.negative,
          .third = plain ? nullptr : &prompts.third};
}

}  // namespace

at::Tensor noise_for(const sampling::Latent& latent, const NoiseChoice& choice) {
  if (!choice.seed) return at::zeros_like(latent.samples, at::TensorOptions(at::kCPU));
  return sampling::prepare_noise(latent.samples, *choice.seed, latent.batch_index);
}

StepReport::StepReport(Call& call, const models::LatentFormat& format)
    : call_(call), preview_(call.context<ModelCache>(), format) {}

void StepReport::operator()(const sampling::StepEvent& event) {
  constexpr auto interval = std::chrono::milliseconds(250);
  auto now = Clock::now();
  bool last = event.step + 1 >= event.total;
  if (preview_.active() && !last && (event.step == 0 || now - shown_ >= interval)) {
    shown_ = now;
    show(event.denoised);
  }
  call_.progress(event.step + 1, event.total);
}

void StepReport::show(const at::Tensor& denoised) {
  auto pixels = preview_(denoised);
  media::Image image;
  image.height = static_cast<int>(pixels.size(0));
  image.width = static_cast<int>(pixels.size(1));
  image.channels = 3;
  const auto* data = pixels.const_data_ptr<std::uint8_t>();
  image.pixels.assign(data, data + pixels.numel());
  call_.preview(graph::Value::of("PREVIEW", std::move(image)));
}

PreparedRun::PreparedRun(Call& call, ModelGuider guider, const at::Tensor& latent, int steps)
    : guider_(std::move(guider)), sampled_(guider_.model) {
  auto& models = call.context<ModelCache>();
  auto& prompts = guider_.guider;
  const bool two = guider_.negative_model && prompts.rule.cfg != 1.0;
  for (auto* list : {&prompts.positive, &prompts.negative, &prompts.third})
    *list = with_open_controls(
        *list, two && list == &prompts.negative ? *guider_.negative_model : guider_.model, models);
  auto& engine = call.context<streaming::Engine>();
  plan_only_ = engine.plan_only();
  auto shape = latent_shape(sampled_, latent, call.place());
  if (two) {
    negative_.emplace(*guider_.negative_model);
    prepare_both(engine, sampled_, *negative_,
                 {.latent = shape, .steps = steps, .positive = prompts.positive, .negative = {}},
                 {.latent = latent_shape(*negative_, latent, call.place()),
                  .steps = steps,
                  .positive = prompts.negative,
                  .negative = {}});
    both_.emplace(sampled_, *negative_);
    return;
  }
  const auto run = shape_of(prompts, shape, steps);
  team_ = Team::make(sampled_, run, engine,
                     team_devices(guider_.model, call.context<Settings>(), engine));
  if (!team_) prepare_one(call, run);
}

/// One model runs; what comes after it is prepared as far as it is known.
void PreparedRun::prepare_one(Call& call, const RunShape& shape) {
  auto& engine = call.context<streaming::Engine>();
  auto wanted = sampled_.wanted(engine, shape);
  auto next = next_run(call, guider_.model);
  std::optional<SampledModel> later;
  std::optional<streaming::Engine::Wanted> expected;
  if (next) try {
      later.emplace(next->guider.model);
      const auto latent = latent_shape(*later, at::empty(shape.latent, at::kMeta), call.place());
      expected = later->wanted(engine, shape_of(next->guider.guider, latent, next->steps)).front();
      // Its weights are only there as long as the network that they are of.
      const auto& loaded = next->guider.model.loaded;
      expected->model = {loaded, loaded->weights.get()};
    } catch (const std::exception& error) {
      throw_if_interrupted();
      expected.reset();
      log::debug("{}: what comes next is not prepared: {}", call.place(), error.what());
    }
  sampled_.hold(engine.prepare(wanted, expected ? &*expected : nullptr));
}

sampling::X0Model& PreparedRun::model() {
  if (both_) return *both_;
  if (team_) return *team_;
  return sampled_;
}

}  // namespace distorch::nodes
