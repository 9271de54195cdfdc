#include "distorch/nodes/wan_wrapper_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/nodes/sample_run.h"
#include "distorch/nodes/wan_wrapper_cache.h"
#include "distorch/nodes/wan_wrapper_guidance.h"
#include "distorch/nodes/wan_wrapper_passes.h"
#include "distorch/nodes/wan_wrapper_windows.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;

namespace {

constexpr double kTimesteps = 1000.0;

bool is_one(double cfg) { return std::abs(cfg - 1.0) < 1e-9; }

class Run {
 public:
  Run(graph::Call& call, const SamplerJob& job)
      : call_(call),
        job_(job),
        network_(job.model, call.context<streaming::Engine>()),
        shape_(latent_shape(job, network_)),
        steps_(static_cast<std::int64_t>(job.schedule.timesteps.size())),
        prompts_(padded_prompts(job, network_, call.place())),
        given_(network_.channels() == kSecondVae ? given_frames(job, shape_[2])
                                                 : std::vector<std::int64_t>{}),
        generator_(at::detail::createCPUGenerator(job.seed)),
        controls_(job, network_, shape_) {
    if (!controls_.empty()) network_.steer_by(controls_);
    if (job.text.negative.defined()) negative_ = padded_text(job.text.negative);
    if (!negative_.defined() && guided_anywhere())
      throw Error(ErrorKind::Usage, call.place(),
                  "needs a negative prompt where 'cfg' is not 1: link one, or set cfg to 1");
  }

  SamplerResult sample() {
    start();
    prepare();
    if (call_.context<streaming::Engine>().plan_only()) return result(x_, x_);
    StepReport report(call_, job_.model.model.latent_format());
    auto solver = sampling::wan_solver(job_.schedule, job_.sa_ode);
    x_ = x_.to(network_.device());
    Tensor denoised = x_;
    for (std::int64_t i = 0; i < steps_; ++i) {
      throw_if_interrupted();
      network_.set_step(static_cast<std::size_t>(i));
      const auto velocity = velocity_at(i);
      denoised = x_ - velocity * (timestep(i) / kTimesteps);
      x_ = stepped(*solver, velocity, i);
      if (const auto next = i + 1; original_.defined() && next < steps_) keep_original(i);
      report({.step = static_cast<int>(i),
              .total = static_cast<int>(steps_),
              .sigma = job_.schedule.sigmas[static_cast<std::size_t>(i)],
              .x = x_,
              .denoised = denoised});
    }
    if (left_out() > 0)
      log::info("{}: the layers were left out in {} of {} calls", call_.place(), left_out(),
                calls_);
    return result(x_, denoised);
  }

 private:
  static constexpr std::int64_t kSecondVae = 48;

  double part(std::int64_t step) const {
    return static_cast<double>(step) / static_cast<double>(steps_);
  }
  double timestep(std::int64_t step) const {
    return job_.schedule.timesteps[static_cast<std::size_t>(step)];
  }
  double cfg(std::int64_t step) const {
    return job_.cfg[std::min(static_cast<std::size_t>(step), job_.cfg.size() - 1)];
  }
  bool guided_anywhere() const {
    for (std::int64_t i = 0; i < steps_; ++i)
      if (!is_one(cfg(i))) return true;
    return false;
  }
  double speech_scale() const { return job_.speech ? job_.speech->scale : 1; }
  double speech_cfg(std::int64_t step) const {
    if (!job_.speech) return 1;
    const auto& cfg = job_.speech->cfg;
    return cfg[std::min(static_cast<std::size_t>(step), cfg.size() - 1)];
  }
  bool compares_speech_anywhere() const {
    for (std::int64_t i = 0; i < steps_; ++i)
      if (!is_one(speech_cfg(i))) return true;
    return false;
  }
  bool windowed() const { return job_.context.has_value(); }
  std::int64_t window_frames() const {
    return windowed() ? std::min(WindowSizes(*job_.context).frames, shape_[2]) : shape_[2];
  }

  /// The latent that the run begins with, from noise and what is given.
  void start() {
    const std::vector<std::int64_t> sizes(shape_.begin() + 1, shape_.end());
    auto noise = at::randn(sizes, generator_, at::TensorOptions(at::kFloat));
    if (windowed() && job_.context->free_noise)
      repeat_noise(noise, WindowSizes(*job_.context), generator_);
    if (job_.samples) noise = begun(noise);
    if (job_.from_start)
      for (const auto& extra : job_.image.extra)
        noise.narrow(1, place_of(extra, shape_[2]), extra.samples.size(2))
            .copy_(extra.samples.select(0, 0));
    x_ = noise.unsqueeze(0);
    if (original_.defined()) noise_ = x_;
  }

  /// Samples to go on from, with noise where that is asked for.
  Tensor begun(const Tensor& noise) {
    const auto& samples = job_.samples->samples;
    const auto notes = notes_of(samples);
    if (notes.generator.defined()) generator_.set_state(notes.generator);
    auto x = samples.select(0, 0).to(at::kFloat);
    const auto missing = noise.size(1) - x.size(1);
    if (samples.dim() != 5 || x.size(0) != noise.size(0) || missing < 0 ||
        x.sizes().slice(2) != noise.sizes().slice(2))
      throw Error(ErrorKind::Shape, call_.place(),
                  fmt::format("input 'samples' is a latent of {}, and this video is {}: give both "
                              "the same size and model",
                              c10::str(x.sizes()), c10::str(noise.sizes())));
    if (missing > 0) x = at::cat({x.narrow(1, 0, 1).expand({-1, missing, -1, -1}), x}, 1);
    if (job_.samples->noise_mask.defined()) take_mask(x);
    if (!job_.add_noise) return x.clone();
    const double level = timestep(0) / kTimesteps;
    return noise * level + x * (1 - level);
  }

  /// Grey values of a mask say when a cell begins to change.
  void take_mask(const Tensor& x) {
    auto mask = job_.samples->noise_mask.to(at::kFloat);
    if (mask.dim() == 4) mask = mask.squeeze(1);
    if (mask.dim() == 2) mask = mask.unsqueeze(0);
    if (mask.size(0) < shape_[2]) mask = mask.repeat({shape_[2] / mask.size(0), 1, 1});
    mask_ = at::upsample_trilinear3d(mask.unsqueeze(0).unsqueeze(0),
                                     {shape_[2], shape_[3], shape_[4]}, false)
                .to(network_.device());
    original_ = x.unsqueeze(0).to(network_.device());
  }

  /// What does not change yet is the given video with the next step's noise.
  void keep_original(std::int64_t step) {
    const double level = job_.schedule.sigmas[static_cast<std::size_t>(step) + 1];
    auto noisy = noise_.to(x_.device()) * level + original_ * (1 - level);
    auto kept = ((1 - mask_) > part(step)).to(at::kFloat);
    x_ = noisy * kept + x_ * (1 - kept);
  }

  void prepare() {
    auto passes = passes_of(0, 0);
    if (guided_anywhere() && passes.size() < 2) passes.push_back(with_text(passes[0], negative_));
    if (guided_anywhere() && compares_speech_anywhere() && passes.size() < 3)
      passes.push_back(passes[0]);
    auto shape = shape_;
    shape[2] = window_frames();
    if (shape[2] < shape_[2])
      for (auto& pass : passes) {
        Window window;
        for (std::int64_t i = 0; i < shape[2]; ++i) window.push_back(i);
        pass = in_window(pass, window);
      }
    network_.prepare({.latent = shape,
                      .passes = passes,
                      .options = {{}, enhancement(0, true), job_.riflex, speech_scale()},
                      .keeps_change = job_.cache.has_value(),
                      .steps = static_cast<int>(steps_)});
  }

  double enhancement(std::int64_t step, bool at_all = false) const {
    if (!job_.enhance || shape_[2] < 2) return 0;
    const bool now = part(step) >= job_.enhance->start && part(step) <= job_.enhance->end;
    return now || at_all ? job_.enhance->weight : 0;
  }

  static Pass with_text(Pass pass, const Tensor& text, std::int64_t prompts = 1) {
    pass.text = text;
    pass.prompts = prompts;
    return pass;
  }

  /// Positive and, where there is guidance, negative, and where speech guides as well, the positive
  /// one without it. In a window the prompt of its stretch.
  std::vector<Pass> passes_of(std::int64_t step, std::int64_t first_prompt) {
    if (!given_passes_ || job_.image.control || !job_.image.vace.empty())
      given_passes_ = passes_at(job_, network_, shape_, part(step));
    auto both = *given_passes_;
    for (auto* pass : {&both.positive, &both.negative})
      controls_.tell(*pass, part(step), job_.text.prompts[static_cast<std::size_t>(first_prompt)]);
    const auto count = static_cast<std::int64_t>(prompts_.size());
    std::vector<Pass> passes;
    const bool several = !windowed() && count > 1 && shape_[2] >= count;
    passes.push_back(
        several ? with_text(both.positive, at::cat(prompts_, 1), count)
                : with_text(both.positive, prompts_[static_cast<std::size_t>(first_prompt)]));
    if (is_one(cfg(step))) return passes;
    // Of several prompts the negative has as many as the positive.
    passes.push_back(several ? with_text(both.negative, negative_.repeat({1, count, 1}), count)
                             : with_text(both.negative, negative_));
    if (!is_one(speech_cfg(step))) {
      // Tokens of nothing add nothing. All else but the text is the negative's, as the pack has it.
      passes.push_back(with_text(both.negative, passes[0].text, passes[0].prompts));
      passes.back().speech = at::zeros_like(passes.back().speech);
    }
    return passes;
  }

  std::vector<CallOptions> options_of(std::int64_t step, std::size_t passes) const {
    CallOptions options{{}, enhancement(step), job_.riflex, speech_scale()};
    std::vector<CallOptions> list(passes, options);
    if (passes > 1 && job_.skipped && part(step) >= job_.skipped->start &&
        part(step) <= job_.skipped->end)
      list[1].skipped.insert(job_.skipped->layers.begin(), job_.skipped->layers.end());
    return list;
  }

  /// The guided velocity of a latent, whole or a window of it.
  Tensor predicted(const Tensor& x, std::int64_t step, const std::vector<Pass>& passes,
                   const Window& window) {
    const auto& how = job_.experimental;
    if (how.zero_star && how.zero_init && step <= how.zero_star_steps) return at::zeros_like(x);
    const auto options = options_of(step, passes.size());
    const auto t = static_cast<float>(timestep(step));
    calls_ += static_cast<int>(passes.size());
    Tensor both;
    if (job_.cache) {
      auto sorted = window;
      std::ranges::sort(sorted);
      auto [memory, added] = caches_.try_emplace(sorted, *job_.cache, job_.model.variant, steps_);
      both = memory->second.velocities(network_, x, t, passes, options, step);
    } else {
      both = plain_velocities(network_, x, t, passes, options);
    }
    if (passes.size() == 1) return how.frequencies ? filtered(both, how) : both;
    const auto positive = both.narrow(0, 0, 1), negative = both.narrow(0, 1, 1);
    if (passes.size() == 2) return guided(positive, negative, cfg(step), how);
    const auto silent = both.narrow(0, 2, 1);
    return negative + (silent - negative) * cfg(step) + (positive - silent) * speech_cfg(step);
  }

  Tensor in_windows(const Tensor& x, std::int64_t step) {
    const auto windows = windows_of(*job_.context, step, shape_[2]);
    auto sum = at::zeros_like(x);
    auto weight = at::zeros({1, 1, shape_[2], 1, 1}, x.options());
    const auto prompts = static_cast<double>(prompts_.size());
    for (const auto& window : windows) {
      throw_if_interrupted();
      const auto last = static_cast<double>(*std::ranges::max_element(window));
      const auto section = static_cast<double>(shape_[2]) / prompts;
      const auto prompt = std::min(static_cast<std::int64_t>(last / section),
                                   static_cast<std::int64_t>(prompts_.size()) - 1);
      auto passes = passes_of(step, prompt);
      for (auto& pass : passes) pass = in_window(pass, window);
      auto frames = at::tensor(window, at::TensorOptions(at::kLong)).to(x.device());
      auto velocity = predicted(x.index_select(2, frames), step, passes, window);
      auto counts =
          window_weights(*job_.context, window, shape_[2]).view({1, 1, -1, 1, 1}).to(x.device());
      sum.index_add_(2, frames, velocity * counts);
      weight.index_add_(2, frames, counts);
    }
    return sum / weight;
  }

  Tensor velocity_at(std::int64_t step) {
    const bool turns = job_.loop && part(step) >= job_.loop->start && part(step) <= job_.loop->end;
    auto x = turns && turned_ > 0 ? x_.roll(-turned_, 2) : x_;
    auto velocity = windowed() ? in_windows(x, step) : predicted(x, step, passes_of(step, 0), {});
    if (turns) {
      velocity = velocity.roll(turned_, 2);
      turned_ = (turned_ + job_.loop->skip) % shape_[2];
    }
    if (job_.experimental.rescaled_score)
      velocity = rescaled_score(velocity, x_, timestep(step) / kTimesteps, job_.experimental);
    return velocity;
  }

  /// One step of the solver; frames that are given stay.
  Tensor stepped(sampling::WanSolver& solver, const Tensor& velocity, std::int64_t step) {
    const auto i = static_cast<std::size_t>(step);
    if (given_.empty()) return solver.step(x_, velocity, i, generator_);
    std::vector<std::int64_t> moving;
    for (std::int64_t frame = 0; frame < shape_[2]; ++frame)
      if (std::ranges::find(given_, frame) == given_.end()) moving.push_back(frame);
    if (moving.empty()) return x_;
    auto frames = at::tensor(moving, at::TensorOptions(at::kLong)).to(x_.device());
    auto part =
        solver.step(x_.index_select(2, frames), velocity.index_select(2, frames), i, generator_);
    return x_.index_copy(2, frames, part);
  }

  int left_out() const {
    int count = 0;
    for (const auto& [window, cache] : caches_) count += cache.left_out();
    return count;
  }

  SamplerResult result(const Tensor& x, const Tensor& denoised) {
    const bool context_looped = windowed() && job_.context->schedule == "uniform_looped";
    LatentNotes notes{.generator = generator_.get_state(),
                      .has_reference = job_.image.has_reference,
                      .end_image = job_.image.end_image && !job_.image.fun_or_first_last,
                      .looped = job_.loop.has_value() || context_looped};
    return {x.to(at::kCPU).contiguous(), denoised.to(at::kCPU).contiguous(), notes};
  }

  graph::Call& call_;
  const SamplerJob& job_;
  WanNetwork network_;
  std::vector<std::int64_t> shape_;
  std::int64_t steps_;
  std::vector<Tensor> prompts_;
  Tensor negative_;
  std::vector<std::int64_t> given_;
  at::Generator generator_;
  ControlRun controls_;
  Tensor x_, noise_, original_, mask_;
  std::optional<StepPasses> given_passes_;
  std::map<Window, StepCacheRun> caches_;
  std::int64_t turned_ = 0;
  int calls_ = 0;
};

}  // namespace

SamplerResult sample_video(graph::Call& call, const SamplerJob& job) {
  return Run(call, job).sample();
}

}  // namespace distorch::nodes::wan_wrapper
