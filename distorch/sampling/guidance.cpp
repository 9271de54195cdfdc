#include "distorch/sampling/guidance.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/sampling/batch.h"
#include "distorch/sampling/guidance_pipeline.h"
#include "distorch/sampling/several_calls.h"
#include "distorch/sampling/step_cache.h"

namespace distorch::sampling {
namespace {

using Box = PreparedItem::Box;

at::Tensor crop(at::Tensor tensor, const std::optional<Box>& box, std::int64_t first_dim) {
  if (box) {
    for (std::size_t d = 0; d < box->size.size(); ++d) {
      tensor =
          tensor.narrow(first_dim + static_cast<std::int64_t>(d), box->origin[d], box->size[d]);
    }
  }
  return tensor;
}

// [rows of x times `copies`]: the noise level as a network takes it, on x's device.
at::Tensor per_item(const at::Tensor& x, float sigma, std::int64_t copies = 1) {
  return at::full({x.size(0) * copies}, sigma, x.options().dtype(at::kFloat));
}

// One item at one step: what to compute and how much it weighs where.
struct Task {
  std::size_t list;  // which result it belongs to
  at::Tensor x;      // cropped
  at::Tensor weight;
  std::optional<Box> box;  // within the latent
  ModelInputs inputs;      // with the batch of x
  const Control* control;
  const void* owner;  // the item, for caches
};

// The part of an item's box that lies in a latent of `dims`.
Box clip(const Box& box, at::IntArrayRef dims) {
  Box out = box;
  for (std::size_t d = 0; d < dims.size(); ++d) {
    out.size[d] = std::min(dims[d] - out.origin[d], out.size[d]);
    if (out.origin[d] < 0 || out.size[d] < 1) {
      throw Error(
          ErrorKind::Usage, "conditioning area",
          fmt::format("size {} at {} lies outside the latent of {} cells", fmt::join(box.size, "x"),
                      fmt::join(box.origin, ","), fmt::join(dims, "x")));
    }
  }
  return out;
}

// Fades the inner edges of an area in over up to 8 cells; edges of the picture stay.
void feather(at::Tensor& weight, const Box& box, at::IntArrayRef dims) {
  constexpr std::int64_t kReach = 8;
  for (std::size_t d = 0; d < dims.size(); ++d) {
    const auto dim = static_cast<std::int64_t>(d) + 2;
    const std::int64_t reach = std::min(kReach, weight.size(dim) / 4);
    for (std::int64_t cell = 0; cell < reach; ++cell) {
      const double factor = (1.0 / static_cast<double>(reach)) * static_cast<double>(cell + 1);
      if (box.origin[d] != 0) {
        weight.narrow(dim, cell, 1).mul_(factor);
      }
      if (box.origin[d] + box.size[d] < dims[d]) {
        weight.narrow(dim, box.size[d] - 1 - cell, 1).mul_(factor);
      }
    }
  }
}

at::Tensor weight_of(const PreparedItem& item, const std::optional<Box>& box, const at::Tensor& x,
                     at::IntArrayRef dims) {
  if (item.mask.defined()) {
    // A mask has height and width only; with frames it holds for all of them.
    std::optional<Box> plane = box;
    if (plane && plane->size.size() > 2) {
      plane->size.erase(plane->size.begin(), plane->size.end() - 2);
      plane->origin.erase(plane->origin.begin(), plane->origin.end() - 2);
    }
    at::Tensor mask =
        repeat_to(crop(item.mask, plane, 1) * item.mask_strength, x.size(0)).unsqueeze(1);
    while (mask.dim() < x.dim()) {
      mask = mask.unsqueeze(2);
    }
    return mask.expand_as(x) * item.strength;
  }
  at::Tensor weight = at::ones_like(x) * item.strength;
  if (box) {
    feather(weight, *box, dims);
  }
  return weight;
}

ModelInputs inputs_for(const PreparedItem& item, const std::optional<Box>& box,
                       std::int64_t batch) {
  ModelInputs out = item.inputs;
  for (auto& [name, input] : out) {
    if (input.kind == ModelInput::Kind::NoiseShape) {
      input.value = crop(input.value, box, 2);
    }
    if (input.kind != ModelInput::Kind::Constant && input.value.defined()) {
      input.value = repeat_to(input.value, batch);
    }
  }
  return out;
}

bool counts_at(const PreparedItem& item, float sigma) {
  return !(item.sigma_start && sigma > *item.sigma_start) &&
         !(item.sigma_end && sigma < *item.sigma_end);
}

// Never asks a device for numbers: that would hold the host up at every step. Equal tensors on a
// device that are not the same one are run apart, which gives the same picture.
bool same_constant(const ModelInput& a, const ModelInput& b) {
  if (a.number != b.number || a.value.defined() != b.value.defined()) {
    return false;
  }
  if (!a.value.defined() || a.value.is_same(b.value)) {
    return true;
  }
  return a.value.is_cpu() && b.value.is_cpu() && a.value.sizes() == b.value.sizes() &&
         at::equal(a.value, b.value);
}

bool fit_together(const ModelInput& a, const ModelInput& b) {
  if (a.kind != b.kind) {
    return false;
  }
  if (a.kind == ModelInput::Kind::Constant) {
    return same_constant(a, b);
  }
  if (a.kind == ModelInput::Kind::CrossAttn && a.value.sizes() != b.value.sizes()) {
    constexpr std::int64_t kMostRepeats = 4;  // beyond that, padding costs more than a second call
    const std::int64_t tokens_a = a.value.size(1);
    const std::int64_t tokens_b = b.value.size(1);
    return a.value.size(0) == b.value.size(0) && a.value.size(2) == b.value.size(2) &&
           std::lcm(tokens_a, tokens_b) / std::min(tokens_a, tokens_b) <= kMostRepeats;
  }
  return a.value.sizes() == b.value.sizes();
}

bool same_control(const Control* a, const Control* b) {
  return a == b || (a != nullptr && b != nullptr && a->equals(*b));
}

bool fit_together(const Task& a, const Task& b) {
  return a.x.sizes() == b.x.sizes() && same_control(a.control, b.control) &&
         fit_together(a.inputs, b.inputs);
}

// Attention over a text repeated whole gives what attention over the text gives.
at::Tensor join_text(std::vector<at::Tensor> texts) {
  std::int64_t tokens = 1;
  for (const at::Tensor& text : texts) {
    tokens = std::lcm(tokens, text.size(1));
  }
  for (at::Tensor& text : texts) {
    text = text.size(1) < tokens ? text.repeat({1, tokens / text.size(1), 1}) : text;
  }
  return at::cat(texts);
}

BatchedInputs join(const std::vector<const Task*>& batch) {
  BatchedInputs out;
  for (const auto& [name, first] : batch.front()->inputs) {
    std::vector<at::Tensor> values;
    for (const Task* task : batch) {
      values.push_back(task->inputs.at(name).value);
    }
    out[name] = first;
    switch (first.kind) {
      case ModelInput::Kind::Constant: break;
      case ModelInput::Kind::CrossAttn: out[name].value = join_text(std::move(values)); break;
      default: out[name].value = at::cat(values);
    }
  }
  return out;
}

std::vector<Task> tasks_at(const std::vector<const std::vector<PreparedItem>*>& lists,
                           const at::Tensor& x, float sigma) {
  const at::IntArrayRef dims = x.sizes().slice(2);
  std::vector<Task> tasks;
  for (std::size_t list = 0; list < lists.size(); ++list) {
    for (const PreparedItem& item : *lists[list]) {
      if (!counts_at(item, sigma)) {
        continue;
      }
      const std::optional<Box> box = item.box ? std::optional(clip(*item.box, dims)) : std::nullopt;
      const at::Tensor part = crop(x, box, 2);
      tasks.push_back({list, part, weight_of(item, box, part, dims), box,
                       inputs_for(item, box, x.size(0)), item.control.get(), &item});
    }
  }
  return tasks;
}

// Takes out the tasks to run in one call: all that go with the first, last one first, or as many of
// them as may be together or the model has room for.
std::vector<Task> take_batch(const X0Model& model, std::vector<Task>& tasks, std::size_t most) {
  std::vector<std::size_t> together;
  for (std::size_t i = tasks.size(); i-- > 0;) {
    if (fit_together(tasks[i], tasks.front())) {
      together.push_back(i);
    }
  }
  together.resize(std::min(together.size(), most));
  std::vector<std::int64_t> shape = tasks.front().x.sizes().vec();
  for (std::size_t parts = 1; parts <= together.size(); ++parts) {
    const std::size_t count = together.size() / parts;
    std::vector<const ModelInputs*> inputs;
    for (std::size_t k = 0; k < count; ++k) {
      inputs.push_back(&tasks[together[k]].inputs);
    }
    shape[0] = tasks.front().x.size(0) * static_cast<std::int64_t>(count);
    if (count == 1 || model.fits(shape, inputs)) {
      together.resize(count);
      break;
    }
  }
  std::vector<Task> batch;
  for (std::size_t index : together) {  // highest position first
    batch.push_back(std::move(tasks[index]));
    tasks.erase(tasks.begin() + static_cast<std::ptrdiff_t>(index));
  }
  return batch;
}

NetworkCall call_of(const std::vector<Task>& batch, const at::Tensor& x, float sigma,
                    const NetworkChange* change, StepCache* cache) {
  std::vector<const Task*> tasks;
  std::vector<at::Tensor> parts;
  std::vector<const void*> owners;
  for (const Task& task : batch) {
    tasks.push_back(&task);
    parts.push_back(task.x);
    owners.push_back(task.owner);
  }
  const auto count = static_cast<std::int64_t>(batch.size());
  return {at::cat(parts),
          per_item(x, sigma, count),
          join(tasks),
          {sigma, count, batch.front().control, change, cache, std::move(owners)}};
}

// Sums over the items of each list, and of their weights.
struct Sums {
  std::vector<at::Tensor> results, weights;

  Sums(std::size_t lists, const at::Tensor& x) {
    constexpr double kAlmostNothing = 1e-37;  // where no item counts: 0 / this = 0
    for (std::size_t i = 0; i < lists; ++i) {
      results.push_back(at::zeros_like(x));
      weights.push_back(at::full_like(x, kAlmostNothing));
    }
  }
  void add(const std::vector<Task>& batch, const at::Tensor& result) {
    const std::vector<at::Tensor> pieces = result.chunk(static_cast<std::int64_t>(batch.size()));
    for (std::size_t k = 0; k < batch.size(); ++k) {
      const Task& task = batch[k];
      crop(results[task.list], task.box, 2).add_(pieces[k] * task.weight);
      crop(weights[task.list], task.box, 2).add_(task.weight);
    }
  }
};

// All calls are made ready, run at the same time, and added up in the order in which they would run
// one by one: the sum has the same bits.
void run_at_once(X0Model& model, SeveralCalls& several, std::vector<Task> tasks,
                 const at::Tensor& x, float sigma, const NetworkChange* change, Sums& sums) {
  const std::size_t most = (tasks.size() + several.at_once() - 1) / several.at_once();
  std::vector<std::vector<Task>> batches;
  std::vector<NetworkCall> calls;
  while (!tasks.empty()) {
    batches.push_back(take_batch(model, tasks, most));
    calls.push_back(call_of(batches.back(), x, sigma, change, nullptr));
  }
  const std::vector<at::Tensor> results = several.apply_all(calls);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    sums.add(batches[i], results.at(i));
  }
}

bool is_one(double number) { return std::abs(number - 1.0) <= 1e-9; }

}  // namespace

bool fit_together(const ModelInputs& a, const ModelInputs& b) {
  if (a.size() != b.size()) {
    return false;
  }
  for (const auto& [name, input] : a) {
    const auto other = b.find(name);
    if (other == b.end() || !fit_together(input, other->second)) {
      return false;
    }
  }
  return true;
}

at::Tensor repeat_to(const at::Tensor& tensor, std::int64_t count, std::int64_t dim) {
  const std::int64_t have = tensor.size(dim);
  if (have >= count) {
    return have == count ? tensor : tensor.narrow(dim, 0, count);
  }
  std::vector<std::int64_t> times(static_cast<std::size_t>(tensor.dim()), 1);
  times[static_cast<std::size_t>(dim)] = (count + have - 1) / have;
  return tensor.repeat(times).narrow(dim, 0, count);
}

ModelInputs X0Model::encode(const ConditioningItem& item, const EncodeContext& context) const {
  ModelInputs out;
  if (item.cross_attn.defined()) {
    out["c_crossattn"] = {
        ModelInput::Kind::CrossAttn, item.cross_attn.to(context.noise.device()), {}};
  }
  return out;
}

bool X0Model::fits(at::IntArrayRef, const std::vector<const ModelInputs*>&) const { return true; }

at::Tensor X0Model::scale_latent_inpaint(const at::Tensor& sigma, const at::Tensor& noise,
                                         const at::Tensor& latent_image) const {
  return sampling().noise_scaling(sigma, noise, latent_image);
}

at::Tensor predict_x0(
    const ModelSampling& sampling, const at::Tensor& x, const at::Tensor& sigma,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& network) {
  return predict_x0(sampling, x, sigma, CallFacts(), network);
}

at::Tensor predict_x0(
    const ModelSampling& sampling, const at::Tensor& x, const at::Tensor& sigma,
    const CallFacts& facts,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& network) {
  const at::Tensor scaled = sampling.calculate_input(sigma, x);
  const auto compute = [&] {
    return network(scaled, sampling.timestep(sigma).to(at::kFloat)).to(at::kFloat);
  };
  const at::Tensor output = facts.cache != nullptr
                                ? facts.cache->through(scaled, facts.sigma, facts.owners, compute)
                                : compute();
  return sampling.calculate_denoised(sigma, output, x);
}

std::vector<at::Tensor> predict_each(X0Model& model,
                                     const std::vector<const std::vector<PreparedItem>*>& lists,
                                     const at::Tensor& x, float sigma, const NetworkChange* change,
                                     StepCache* cache) {
  Sums sums(lists.size(), x);
  std::vector<Task> tasks = tasks_at(lists, x, sigma);
  if (cache != nullptr) {
    cache->begin();
  }
  // A cache learns from one call after the other.
  auto* several = cache == nullptr ? dynamic_cast<SeveralCalls*>(&model) : nullptr;
  if (several != nullptr && tasks.size() > 1) {
    throw_if_interrupted();
    run_at_once(model, *several, std::move(tasks), x, sigma, change, sums);
    tasks.clear();
  }
  while (!tasks.empty()) {
    throw_if_interrupted();
    const std::vector<Task> batch = take_batch(model, tasks, tasks.size());
    const NetworkCall call = call_of(batch, x, sigma, change, cache);
    sums.add(batch, model.apply(call.x, call.sigma, call.inputs, call.facts));
  }
  for (std::size_t i = 0; i < sums.results.size(); ++i) {
    sums.results[i] /= sums.weights[i];
  }
  return std::move(sums.results);
}

CfgDenoiser::CfgDenoiser(X0Model& model, PreparedConditioning conditioning, GuiderRule rule,
                         RunState state)
    : model_(model), conditioning_(std::move(conditioning)), rule_(rule), state_(state) {}

at::Tensor CfgDenoiser::operator()(const at::Tensor& x, float sigma) {
  return predict(x, sigma, false).denoised;
}

GuidedPair CfgDenoiser::with_uncond(const at::Tensor& x, float sigma) {
  return predict(x, sigma, true);
}

GuidedPair CfgDenoiser::predict(const at::Tensor& x, float sigma, bool need_uncond) {
  if (state_.result_cache == nullptr) {
    return compute(x, sigma, need_uncond);
  }
  state_.result_cache->begin();
  const at::Tensor denoised = state_.result_cache->through(x, sigma, {this}, [&] {
    GuidedPair pair = compute(x, sigma, need_uncond);
    last_uncond_ = pair.uncond;
    return pair.denoised;
  });
  return {denoised, last_uncond_};
}

std::vector<at::Tensor> CfgDenoiser::estimates(const at::Tensor& x, float sigma,
                                               const std::vector<const Items*>& lists,
                                               const NetworkChange* change) {
  std::vector<const Items*> wanted;
  for (const Items* list : lists) {
    if (list != nullptr) {
      wanted.push_back(list);
    }
  }
  std::vector<at::Tensor> each =
      predict_each(model_, wanted, x, sigma, change, state_.network_cache);
  for (std::size_t i = 0; i < lists.size(); ++i) {
    if (lists[i] == nullptr) {
      each.insert(each.begin() + static_cast<std::ptrdiff_t>(i), at::Tensor());
    }
  }
  return each;
}

at::Tensor CfgDenoiser::guided(const at::Tensor& x, float sigma, const at::Tensor& cond,
                               const at::Tensor& uncond, double cfg, const Items& asked) {
  if (state_.guidance == nullptr || !state_.guidance->changes_result()) {
    return uncond.defined() ? uncond + (cond - uncond) * cfg : cond;
  }
  GuidanceStep step = {.x = x, .sigma = sigma, .cfg = cfg, .cond = cond};
  step.has_uncond = uncond.defined() && !conditioning_.negative.empty();
  step.uncond = uncond.defined() ? uncond : at::zeros_like(x);
  step.ask = [&](const NetworkChange& change) { return estimates(x, sigma, {&asked}, &change)[0]; };
  step.ask_negative = [&](const at::Tensor& other) {
    return estimates(other, sigma, {&conditioning_.negative})[0];
  };
  step.attention_map = [&] {
    NetworkChange change;
    change.attention_map = "middle_block";
    const PreparedItem& item = conditioning_.negative.front();
    const CallFacts facts = {sigma, 1, item.control.get(), &change, nullptr, {&item}};
    return model_.apply(x, per_item(x, sigma), inputs_for(item, std::nullopt, x.size(0)), facts);
  };
  state_.guidance->combine(step);
  return step.denoised;
}

GuidedPair CfgDenoiser::compute(const at::Tensor& x, float sigma, bool need_uncond) {
  switch (rule_.kind) {
    case GuiderRule::Kind::PerpNeg: return predict_perpendicular(x, sigma, need_uncond);
    case GuiderRule::Kind::Cfg: return predict_plain(x, sigma, need_uncond);
    default: return predict_dual(x, sigma, need_uncond);
  }
}

double CfgDenoiser::cfg_at(float sigma) const {
  return state_.guidance != nullptr ? state_.guidance->cfg_at(sigma, rule_.cfg) : rule_.cfg;
}

GuidedPair CfgDenoiser::predict_plain(const at::Tensor& x, float sigma, bool need_uncond) {
  const auto& c = conditioning_;
  const double cfg = cfg_at(sigma);
  need_uncond = need_uncond || (state_.guidance != nullptr && state_.guidance->needs_negative());
  const Items* negative = is_one(cfg) && !need_uncond ? nullptr : &c.negative;
  const auto* skipped =
      state_.guidance != nullptr ? state_.guidance->skipped_for_negative(sigma) : nullptr;
  std::vector<at::Tensor> each;
  if (skipped != nullptr && negative != nullptr && !negative->empty()) {
    NetworkChange change;
    change.skipped = *skipped;
    each = {estimates(x, sigma, {&c.positive})[0], estimates(x, sigma, {negative}, &change)[0]};
  } else {
    each = estimates(x, sigma, {&c.positive, negative});
  }
  if (state_.guidance != nullptr) {
    const bool has_uncond = each[1].defined() && !negative->empty();
    GuidanceStep step = {.x = x, .sigma = sigma, .cfg = cfg, .cond = each[0]};
    step.has_uncond = has_uncond;
    step.uncond = each[1].defined() ? each[1] : at::zeros_like(x);
    state_.guidance->before(step);
    each = {step.cond, step.uncond};
  }
  return {guided(x, sigma, each[0], each[1], cfg, c.positive), each[1]};
}

GuidedPair CfgDenoiser::predict_dual(const at::Tensor& x, float sigma, bool need_uncond) {
  const auto& c = conditioning_;
  if (rule_.kind == GuiderRule::Kind::NestedDual) {
    const std::vector<at::Tensor> each = estimates(x, sigma, {&c.negative, &c.third, &c.positive});
    const at::Tensor inner = guided(x, sigma, each[2], each[1], rule_.cfg, c.positive);
    return {each[0] + (inner - each[0]) * rule_.second_cfg, each[1]};
  }
  const bool no_negative = is_one(rule_.second_cfg) && !need_uncond;
  const bool no_third = no_negative && is_one(rule_.cfg);
  const std::vector<at::Tensor> each = estimates(
      x, sigma, {no_negative ? nullptr : &c.negative, no_third ? nullptr : &c.third, &c.positive});
  const at::Tensor third = no_third ? at::zeros_like(x) : each[1];
  const at::Tensor inner = guided(x, sigma, third, each[0], rule_.second_cfg, c.third);
  return {inner + (each[2] - third) * rule_.cfg, each[0]};
}

GuidedPair CfgDenoiser::predict_perpendicular(const at::Tensor& x, float sigma, bool need_uncond) {
  const auto& c = conditioning_;
  const double cfg = cfg_at(sigma);
  const bool no_negative = std::abs(rule_.second_cfg) <= 1e-9 && !need_uncond;
  if (no_negative && is_one(cfg)) {
    return {estimates(x, sigma, {&c.positive})[0], {}};
  }
  const std::vector<at::Tensor> each =
      estimates(x, sigma, {&c.positive, no_negative ? nullptr : &c.negative, &c.third});
  const at::Tensor& empty = each[2];
  const at::Tensor towards = each[0] - empty;
  if (no_negative) {
    return {empty + towards * cfg, {}};
  }
  const at::Tensor away = each[1] - empty;
  // The part of `away` that does not lie along `towards`, over the whole batch as one vector.
  const at::Tensor along = (away * towards).sum() / towards.square().sum() * towards;
  const at::Tensor change = towards - (away - along) * rule_.second_cfg;
  return {empty + change * cfg, each[1]};
}

InpaintDenoiser::InpaintDenoiser(CfgDenoiser& inner, Kept kept)
    : inner_(inner), kept_(std::move(kept)) {}

at::Tensor InpaintDenoiser::mask_at(float sigma) const {
  return kept_.mask_at ? kept_.mask_at(kept_.mask, sigma) : kept_.mask;
}

at::Tensor InpaintDenoiser::blend_in(const at::Tensor& x, const at::Tensor& mask,
                                     float sigma) const {
  const at::Tensor kept =
      inner_.model().scale_latent_inpaint(per_item(x, sigma), kept_.noise, kept_.latent_image);
  return x * mask + kept * (1.0 - mask);
}

at::Tensor InpaintDenoiser::blend_out(const at::Tensor& denoised, const at::Tensor& mask) const {
  return denoised * mask + kept_.latent_image * (1.0 - mask);
}

at::Tensor InpaintDenoiser::operator()(const at::Tensor& x, float sigma) {
  const at::Tensor mask = mask_at(sigma);
  return blend_out(inner_(blend_in(x, mask, sigma), sigma), mask);
}

GuidedPair InpaintDenoiser::with_uncond(const at::Tensor& x, float sigma) {
  const at::Tensor mask = mask_at(sigma);
  GuidedPair pair = inner_.with_uncond(blend_in(x, mask, sigma), sigma);
  pair.denoised = blend_out(pair.denoised, mask);
  return pair;
}

at::Tensor fit_mask(const at::Tensor& given, at::IntArrayRef latent_shape) {
  const at::IntArrayRef dims = latent_shape.slice(2);
  if (given.dim() < 2 || (dims.size() != 2 && dims.size() != 3)) {
    throw Error(ErrorKind::Shape, "noise mask",
                "a mask needs height and width, and a latent 2 or 3 dimensions");
  }
  at::Tensor mask = given.to(at::kFloat);
  const std::int64_t height = mask.size(-2);
  const std::int64_t width = mask.size(-1);
  if (dims.size() == 2) {
    mask = at::upsample_bilinear2d(mask.reshape({-1, 1, height, width}), dims, false);
  } else {
    mask = mask.dim() < 5 ? mask.reshape({1, 1, -1, height, width}) : mask;
    mask = at::upsample_trilinear3d(mask, dims, false);
  }
  return repeat_to(repeat_to(mask, std::max(latent_shape[1], mask.size(1)), 1), latent_shape[0]);
}

}  // namespace distorch::sampling
