#include "distorch/nodes/hyvideo_wrapper_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/nodes/hyvideo_wrapper_cache.h"
#include "distorch/nodes/hyvideo_wrapper_passes.h"
#include "distorch/nodes/sample_run.h"
#include "distorch/nodes/wan_wrapper_guidance.h"
#include "distorch/nodes/wan_wrapper_windows.h"
#include "distorch/sampling/hunyuan_schedule.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;
using wan_wrapper::Window;
using wan_wrapper::WindowSizes;

namespace {

constexpr double kTimesteps = 1000.0;

/// How many frames a latent has that RIFLEx is for.
constexpr std::int64_t kLongVideo = 50;

/// What a scale in a type of few digits comes to, as the original has it.
double in_type(double scale, at::ScalarType type) {
  return (at::full({}, scale, type) * kTimesteps).to(at::kDouble).item<double>() / kTimesteps;
}

class Run {
 public:
  Run(graph::Call& call, const SamplerJob& job)
      : call_(call),
        job_(job),
        network_(job.model, call.context<streaming::Engine>()),
        shape_(latent_shape(job, call.place())),
        passes_(passes_of(job, network_, shape_, call.place())),
        whole_(sampling::hunyuan_schedule(job.scheduler, job.steps, job.shift)),
        generator_(at::detail::createCPUGenerator(job.seed)) {
    if (guided_anywhere() && weak_anywhere())
      throw Error(ErrorKind::Usage, call.place(),
                  "takes either stg_args or guidance by a negative prompt: unlink one of them");
    if (job.mask.defined() && job.denoise >= 1)
      throw Error(ErrorKind::Usage, call.place(),
                  "needs 'samples' and a denoise_strength below 1 for a mask, which says what of "
                  "them is made anew");
    if (job.denoise < 1 && !job.samples.defined())
      throw Error(ErrorKind::Usage, call.place(),
                  "needs 'samples' to go on from where denoise_strength is below 1");
    if (job.denoise >= 1 && job.samples.defined())
      throw Error(
          ErrorKind::Usage, call.place(),
          "got 'samples', which count only with a denoise_strength below 1: unlink them, or "
          "lower it");
    cut_schedule();
  }

  Tensor sample() {
    start();
    prepare();
    if (call_.context<streaming::Engine>().plan_only()) return result();
    StepReport report(call_, job_.model.model.latent_format());
    auto solver = sampling::hunyuan_solver(schedule_);
    x_ = x_.to(network_.device());
    for (std::int64_t i = 0; i < steps_; ++i) {
      throw_if_interrupted();
      if (replaces()) x_ = with_picture(x_);
      const auto velocity = velocity_at(i);
      const auto denoised = x_ - velocity * (timestep(i) / kTimesteps);
      x_ = stepped(*solver, velocity, i);
      report({.step = static_cast<int>(i),
              .total = static_cast<int>(steps_),
              .sigma = schedule_.sigmas[static_cast<std::size_t>(i)],
              .x = x_,
              .denoised = denoised});
    }
    if (left_out() > 0)
      log::info("{}: the blocks were left out in {} of {} calls", call_.place(), left_out(),
                calls_);
    if (mask_.defined()) x_ = mask_ * x_ + (1 - mask_) * original_;
    return result();
  }

 private:
  double part(std::int64_t step) const {
    return static_cast<double>(step) / static_cast<double>(steps_);
  }
  double timestep(std::int64_t step) const {
    return schedule_.timesteps[static_cast<std::size_t>(step)];
  }
  template <class Range>
  bool within(const Range& range, std::int64_t step) const {
    return part(step) >= range.start && part(step) <= range.end;
  }
  bool guided_anywhere() const { return job_.embeds.guidance && job_.embeds.guidance->scale > 1; }
  bool weak_anywhere() const { return job_.weak && job_.weak->scale > 0; }
  bool replaces() const {
    return job_.model.condition == Condition::Replace && job_.image.defined();
  }
  bool beside() const { return job_.model.condition == Condition::Concat && job_.image.defined(); }
  /// The picture in place of the first frame.
  Tensor with_picture(const Tensor& x) const {
    return at::cat({job_.image.to(x.device()), x.narrow(2, 1, shape_[2] - 1)}, 2);
  }
  std::int64_t window_frames() const {
    return job_.context ? std::min(WindowSizes(*job_.context).frames, shape_[2]) : shape_[2];
  }

  /// Only the last steps, where samples are changed in part.
  void cut_schedule() {
    schedule_ = whole_;
    const auto taken =
        static_cast<std::int64_t>(static_cast<double>(job_.steps) * std::min(job_.denoise, 1.0));
    if (job_.denoise < 1 && taken > 0)
      schedule_ = whole_.slice({std::max<std::int64_t>(job_.steps - taken, 0), -1});
    steps_ =
        job_.denoise < 1 && taken <= 0 ? 0 : static_cast<std::int64_t>(schedule_.timesteps.size());
  }

  /// The latent that the run begins with, from noise and what is given.
  void start() {
    auto noise =
        at::randn(shape_, generator_, at::TensorOptions(job_.model.precision)).to(at::kFloat);
    if (job_.context && job_.context->free_noise)
      repeat_noise(noise.select(0, 0), WindowSizes(*job_.context), generator_);
    x_ = noise;
    if (job_.denoise < 1) {
      original_ = fitted_samples();
      x_ = original_;
      if (steps_ > 0) {
        const double level = timestep(0) / kTimesteps;
        x_ = original_ * (1 - level) + noise * level;
      }
      take_mask(noise);
    } else if (job_.image.defined() && job_.stable) {
      x_ = begun_with_picture(noise);
    }
  }

  Tensor begun_with_picture(const Tensor& noise) const {
    auto image = job_.image.to(at::kFloat);
    if (job_.model.condition == Condition::Concat) image = padded_picture(image, shape_);
    constexpr float most = 0.999F;
    return (noise * most + image * (1 - most)).to(job_.model.precision).to(at::kFloat);
  }

  /// Samples with as many frames as the video: those of a model with channels beside its latent
  /// begin one frame earlier, missing ones before them are noise.
  Tensor fitted_samples() const {
    auto x = job_.samples.to(at::kFloat);
    if (x.dim() != 5 || x.size(1) != shape_[1] ||
        x.sizes().slice(3) != at::IntArrayRef(shape_).slice(3))
      throw Error(ErrorKind::Shape, call_.place(),
                  fmt::format("input 'samples' is a latent of {}, and this video is {}: give both "
                              "the same size",
                              c10::str(x.sizes()), c10::str(at::IntArrayRef(shape_))));
    if (job_.model.condition == Condition::Concat) x = at::cat({x.narrow(2, 0, 1), x}, 2);
    const auto missing = shape_[2] - x.size(2);
    if (missing <= 0) return x.narrow(2, 0, shape_[2]).clone();
    auto sizes = shape_;
    sizes[2] = missing;
    auto other = at::detail::createCPUGenerator(job_.seed + 1);
    return at::cat({at::randn(sizes, other, at::TensorOptions(at::kFloat)), x}, 2);
  }

  void take_mask(const Tensor& noise) {
    if (!job_.mask.defined()) return;
    constexpr std::int64_t frames = 4;
    const auto time = (job_.mask.size(0) - 1) / frames + 1;
    if (time != 1 && time != shape_[2])
      throw Error(ErrorKind::Shape, call_.place(),
                  fmt::format("input 'mask' has {} frames, and the video has {}: give one for all "
                              "or one for each",
                              job_.mask.size(0), job_.frames));
    const auto device = network_.device();
    mask_ = at::upsample_nearest3d(job_.mask.to(at::kFloat).unsqueeze(0).unsqueeze(0),
                                   {time, shape_[3], shape_[4]})
                .to(device);
    original_ = original_.to(device);
    noise_ = noise.to(device);
  }

  void prepare() {
    Window window;
    for (std::int64_t i = 0; i < window_frames(); ++i) window.push_back(i);
    auto shape = shape_;
    shape[2] = window_frames();
    std::vector<Pass> passes = {in_window(passes_.positive, window)};
    if (guided_anywhere()) passes.push_back(in_window(*passes_.negative, window));
    if (weak_anywhere()) passes.push_back(passes.front());
    auto options = options_of(0, true);
    if (weak_anywhere()) weaken(options);
    options.given_first = replaces();
    network_.prepare({.latent = shape,
                      .passes = passes,
                      .options = options,
                      .keeps_change = job_.cache.has_value(),
                      .steps = static_cast<int>(std::max<std::int64_t>(steps_, 1))});
  }

  /// `at_all`: as if every part of the run did what any does.
  CallOptions options_of(std::int64_t step, bool at_all = false) const {
    CallOptions options{.skipped = {}, .guidance = in_type(job_.guidance, job_.model.precision)};
    if (job_.enhance && shape_[2] > 1 && (at_all || within(*job_.enhance, step))) {
      options.enhance = job_.enhance->weight;
      options.enhance_singles = job_.enhance->singles;
      options.enhance_doubles = job_.enhance->doubles;
    }
    if (!job_.context && shape_[2] > kLongVideo) options.riflex = job_.riflex;
    return options;
  }

  void weaken(CallOptions& options) const {
    options.weak_block = job_.weak->block;
    options.weak_apart = job_.weak->apart;
  }

  /// One call, or what an earlier one tells in its place. `role`: which passes those are.
  Tensor asked(const Tensor& x, std::int64_t step, const std::vector<Pass>& passes,
               const CallOptions& options, const Window& window, int role) {
    ++calls_;
    const auto t = static_cast<float>(timestep(step));
    if (!job_.cache) return network_.velocities(x, t, passes, options);
    auto [memory, added] = caches_.try_emplace({window, role}, *job_.cache, job_.steps);
    return memory->second.velocities(network_, x, t, passes, options, step);
  }

  /// The guided velocity of a latent, whole or a window of it.
  Tensor predicted(const Tensor& x, std::int64_t step, const Window& window) {
    enum { kPositive, kNegative, kBoth };
    auto options = options_of(step);
    // In a window the given frame is only where the window begins with it.
    options.given_first = replaces() && (window.empty() || window.front() == 0);
    auto in = [&](const Pass& pass) { return window.empty() ? pass : in_window(pass, window); };
    const auto positive = in(passes_.positive);
    if (weak_anywhere() && within(*job_.weak, step)) {
      weaken(options);
      auto both = asked(x, step, {positive, positive}, options, window, kBoth);
      const auto strong = both.narrow(0, 0, 1), weak = both.narrow(0, 1, 1);
      return strong + (strong - weak) * job_.weak->scale;
    }
    const bool guided = guided_anywhere() && within(*job_.embeds.guidance, step);
    if (!guided) {
      auto velocity = asked(x, step, {positive}, options, window, kPositive);
      return job_.frequencies ? filtered(velocity, formula()) : velocity;
    }
    const auto& how = *job_.embeds.guidance;
    auto without = options;
    if (job_.skipped && within(*job_.skipped, step)) without.skipped = job_.skipped->blocks;
    const auto negative = in(*passes_.negative);
    Tensor p, n;
    // What counts over a whole call tells apart whether both are in one.
    const bool alike = without.skipped.empty();
    if (alike && (how.together || (options.enhance == 0 && !job_.cache))) {
      auto both = asked(x, step, {negative, positive}, options, window, kBoth);
      n = both.narrow(0, 0, 1);
      p = both.narrow(0, 1, 1);
    } else {
      n = asked(x, step, {negative}, without, window, kNegative);
      p = asked(x, step, {positive}, options, window, kPositive);
    }
    return wan_wrapper::guided(p, n, how.scale, formula());
  }

  wan_wrapper::Experimental formula() const {
    wan_wrapper::Experimental how;
    how.zero_star = job_.embeds.guidance && job_.embeds.guidance->zero_star;
    how.frequencies = job_.frequencies.has_value();
    if (!job_.frequencies) return how;
    how.scale_low = job_.frequencies->low;
    how.scale_high = job_.frequencies->high;
    how.cutoff = job_.frequencies->cutoff;
    return how;
  }

  Tensor in_windows(const Tensor& x, std::int64_t step) {
    auto sum = at::zeros_like(x);
    auto weight = at::zeros({1, 1, shape_[2], 1, 1}, x.options());
    // Ramps here know no loop.
    auto ramps = *job_.context;
    ramps.schedule = "static_standard";
    for (const auto& window : windows_of(*job_.context, step, shape_[2])) {
      throw_if_interrupted();
      auto frames = at::tensor(window, at::TensorOptions(at::kLong)).to(x.device());
      auto velocity = predicted(x.index_select(2, frames), step, window);
      auto counts = window_weights(ramps, window, shape_[2]).view({1, 1, -1, 1, 1}).to(x.device());
      sum.index_add_(2, frames, velocity * counts);
      weight.index_add_(2, frames, counts);
    }
    return sum / weight;
  }

  Tensor velocity_at(std::int64_t step) {
    auto x = x_;
    if (mask_.defined()) {
      const double level = timestep(step) / kTimesteps;
      x = mask_ * x + (1 - mask_) * (original_ * (1 - level) + noise_ * level);
    }
    const bool turns = job_.loop && within(*job_.loop, step);
    if (turns && turned_ > 0) x = x.roll(-turned_, 2);
    auto velocity = job_.context ? in_windows(x, step) : predicted(x, step, {});
    if (!turns) return velocity;
    velocity = velocity.roll(turned_, 2);
    turned_ = (turned_ + job_.loop->skip) % shape_[2];
    return velocity;
  }

  /// One step of the solver; a frame that is given stays.
  Tensor stepped(sampling::WanSolver& solver, const Tensor& velocity, std::int64_t step) {
    const auto i = static_cast<std::size_t>(step);
    if (!replaces()) return solver.step(x_, velocity, i, generator_);
    const auto made = shape_[2] - 1;
    if (made == 0) return x_;
    auto rest = solver.step(x_.narrow(2, 1, made), velocity.narrow(2, 1, made), i, generator_);
    return at::cat({x_.narrow(2, 0, 1), rest}, 2);
  }

  int left_out() const {
    int count = 0;
    for (const auto& [window, cache] : caches_) count += cache.left_out();
    return count;
  }

  Tensor result() const {
    auto x = x_.to(at::kCPU).contiguous();
    return beside() && shape_[2] > 1 ? x.narrow(2, 1, shape_[2] - 1).contiguous() : x;
  }

  graph::Call& call_;
  const SamplerJob& job_;
  HyNetwork network_;
  std::vector<std::int64_t> shape_;
  RunPasses passes_;
  sampling::WanSchedule whole_, schedule_;
  std::int64_t steps_ = 0;
  at::Generator generator_;
  Tensor x_, noise_, original_, mask_;
  std::map<std::pair<Window, int>, TeaCacheRun> caches_;
  std::int64_t turned_ = 0;
  int calls_ = 0;
};

}  // namespace

Tensor sample_video(graph::Call& call, const SamplerJob& job) { return Run(call, job).sample(); }

}  // namespace distorch::nodes::hyvideo
