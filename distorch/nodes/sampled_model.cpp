#include "distorch/nodes/sampled_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/models/reference_cache.h"
#include "distorch/models/timed_inputs.h"
#include "distorch/models/widened.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::InputSpec;
using sampling::BatchedInputs;
using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInputs;

namespace {

/// Inputs that hold reference pictures begin so; how they lie is said by another.
constexpr const char* kReferences = "reference_latents.";
constexpr const char* kReferenceMethod = "reference_method";

/// Batch times all cells: what memory grows with.
std::int64_t cells_of(at::IntArrayRef shape) {
  std::int64_t product = 1;
  for (std::size_t d = 0; d < shape.size(); ++d)
    if (d != 1) product *= shape[d];
  return product;
}

}  // namespace

SampledModel::SampledModel(const Model& model)
    : model_(model),
      device_(device::to_torch(model.loaded->weights->options().compute)),
      modulations_(model) {
  for (const auto& spec : model.loaded->network->inputs())
    keeps_references_ = keeps_references_ || spec.name == models::kReferenceCache;
}

const sampling::ModelSampling& SampledModel::sampling() const { return model_.noise_levels(); }

void SampledModel::prepare(streaming::Engine& engine, const RunShape& shape) {
  hold(engine.prepare(wanted(engine, shape)));
}

std::vector<streaming::Engine::Wanted> SampledModel::wanted(streaming::Engine& engine,
                                                            const RunShape& shape) {
  auto& loaded = *model_.loaded;
  auto call = plan_call(loaded.network->inputs(), shape,
                        [this](const ConditioningItem& item, const EncodeContext& context) {
                          return encode_anywhere(item, context);
                        });
  control_.emplace(engine, format().downscale, shape.latent.at(0));
  control_->add(shape.positive, shape.latent);
  control_->add(shape.negative, shape.latent);
  if (shape.third) control_->add(*shape.third, shape.latent);
  patch_run_.emplace(model_, engine, device_);
  patch_run_->add_to(call.known, shape.latent);
  // The step that keeps something is the largest: all tokens are there, and what is kept.
  if (keeps_references_) call.known.numbers[models::kKeepReferences] = 1;
  modulations_.plan(call);
  planned_calls_ = call.calls;
  planned_cells_ = call.sizes.batch * cells_of(shape.latent) / shape.latent.at(0);
  streaming::RunNeeds needs;
  needs.key = fmt::format("{} {} {}", call.key(), model_.patches.key(),
                          fmt::join(control_->input_names(), " "));
  needs.steps = shape.steps;
  needs.loras = model_.loras;
  needs.profile = [this, &loaded, call](const RigDevice& compute) {
    auto fresh = loaded.make();
    auto profile = streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          fresh->apply(models::blank_inputs(fresh->inputs(), call.sizes, device,
                                            control_->input_names(), call.known),
                       model_.patches);
        });
    if (modulations_.planned()) streaming::leave_idle(profile);
    return profile;
  };
  auto wanted = control_->wanted(call.sizes, shape.steps);
  wanted.insert(wanted.begin(), {loaded.weights, needs});
  return wanted;
}

void SampledModel::add_patches(models::Inputs& call, at::IntArrayRef x) {
  const auto& inputs = patch_run_->inputs(x);
  for (const auto& [name, value] : inputs.tensors()) call.set(name, value);
  for (const auto& [name, value] : inputs.numbers()) call.set_number(name, value);
}

Tensor SampledModel::through_cache(models::Inputs& call, at::IntArrayRef x,
                                   const std::vector<const void*>& owners,
                                   const std::function<Tensor()>& step) {
  auto [kept, is_new] = kept_.try_emplace({owners, x.vec()});
  if (!is_new) {
    models::Inputs without;
    for (const auto& [name, value] : call.tensors())
      if (!name.starts_with(kReferences)) without.set(name, value);
    for (const auto& [name, number] : call.numbers())
      if (name != kReferenceMethod) without.set_number(name, number);
    without.set(models::kReferenceCache, kept->second);
    call = std::move(without);
    return step();
  }
  try {
    call.set_number(models::kKeepReferences, 1);
    auto result = models::split_kept(step(), x);
    kept->second = result.cache;
    return result.prediction;
  } catch (...) {
    kept_.erase(kept);
    throw;
  }
}

Tensor SampledModel::apply(const Tensor& x, const Tensor& sigma, const BatchedInputs& inputs,
                           const sampling::CallFacts& facts) {
  auto& loaded = *model_.loaded;
  const auto& specs = loaded.network->inputs();
  models::Inputs call;
  const auto* timed = dynamic_cast<const models::TimedInputs*>(loaded.family.get());
  for (const auto& [name, input] : inputs)
    if (timed && !timed->counts(name, facts.sigma))
      continue;
    else if (input.number)
      call.set_number(name, *input.number);
    else
      call.set(name, input.value);
  auto patches = model_.patches;
  if (facts.change) {
    const auto& change = *facts.change;
    patches.skipped.insert(change.skipped.begin(), change.skipped.end());
    patches.identity_attention.insert(change.identity_attention.begin(),
                                      change.identity_attention.end());
    patches.attention_map = change.attention_map;
  }
  auto network = [&](const Tensor& scaled, const Tensor& timestep) {
    call.set("x", scaled);
    call.set("timestep", timestep);
    if (!model_.patch_uses.empty()) add_patches(call, x.sizes());
    if (facts.control) {
      const auto& use = static_cast<const ControlUse&>(*facts.control);
      std::unique_lock<std::mutex> turn;
      if (turns_) turn = std::unique_lock(*turns_);
      auto residuals = control_->residuals(use, {x.sizes(), call, sampling(), facts});
      for (const auto& [name, value] : residuals.tensors()) call.set(name, value.to(device_));
    }
    modulations_.add_to(call, facts);
    auto step = [&] {
      return loaded.weights->step(
          models::in_order(specs, call),
          [&](const std::vector<Tensor>& tensors) {
            return loaded.network->apply(models::from_order(specs, tensors, call), patches);
          },
          models::inputs_key(call) + patches.key());
    };
    // What skips blocks has nothing to keep of them.
    if (!keeps_references_ || facts.change || !call.has(std::string(kReferences) + "0"))
      return step();
    return through_cache(call, x.sizes(), facts.owners, step);
  };
  if (!patches.attention_map.empty())
    return network(sampling().calculate_input(sigma, x), sampling().timestep(sigma).to(at::kFloat));
  return sampling::predict_x0(sampling(), x, sigma, facts, network);
}

/// A text conditioning of another model is refused by the names of both files.
void SampledModel::check_text(const InputSpec& spec, const Tensor& value,
                              const ConditioningItem& item) const {
  bool is_text = std::any_of(
      spec.shape.begin(), spec.shape.end(),
      [](const models::Extent& extent) { return extent.of == models::Extent::Of::Tokens; });
  if (!is_text || !value.defined()) return;
  const auto& loaded = *model_.loaded;
  auto where = fmt::format("{} ({})", loaded.weights->checkpoint().path(), loaded.family->name());
  try {
    models::check_inputs({spec}, {{spec.name, value}}, where);
  } catch (const Error& error) {
    auto made_by = item.texts.find("text_encoder");
    if (made_by == item.texts.end()) throw;
    throw Error(error.kind(), where, error.sentence() + "; it was made by " + made_by->second);
  }
}

ModelInputs SampledModel::encode_anywhere(const ConditioningItem& item,
                                          const EncodeContext& context) const {
  ModelInputs inputs;
  std::map<std::string, std::vector<std::int64_t>> reshaped;
  for (const auto& lora : model_.loras)
    for (const auto& adapter : *lora.adapters)
      if (!adapter.reshape.empty()) reshaped[adapter.weight] = adapter.reshape;
  const auto& family = *model_.loaded->family;
  const auto* widened = reshaped.empty() ? nullptr : dynamic_cast<const models::Widened*>(&family);
  for (const auto& spec : model_.loaded->network->inputs()) {
    if (spec.source != InputSpec::Source::Conditioning) continue;
    auto input =
        family.encode(widened ? widened->with_shapes(spec, reshaped) : spec, item, context);
    check_text(spec, input.value, item);
    if (input.defined()) inputs[spec.name] = std::move(input);
  }
  return inputs;
}

ModelInputs SampledModel::encode(const ConditioningItem& item, const EncodeContext& context) const {
  auto inputs = encode_anywhere(item, context);
  for (const auto& spec : model_.loaded->network->inputs())
    if (auto input = inputs.find(spec.name); input != inputs.end() && input->second.value.defined())
      input->second.value = input->second.value.to(device_, spec.dtype);
  return inputs;
}

bool SampledModel::fits(at::IntArrayRef x_shape, const std::vector<const ModelInputs*>&) const {
  return planned_cells_ == 0 || cells_of(x_shape) <= planned_cells_;
}

Tensor SampledModel::scale_latent_inpaint(const Tensor& sigma, const Tensor& noise,
                                          const Tensor& latent_image) const {
  if (model_.loaded->family->keeps_given_part_clean()) return latent_image;
  return X0Model::scale_latent_inpaint(sigma, noise, latent_image);
}

Tensor SampledModel::process_latent_in(const Tensor& latent) const {
  return format().into_network(latent);
}

Tensor SampledModel::process_latent_out(const Tensor& latent) const {
  return format().out_of_network(latent);
}

Tensor preview_pixels(const models::LatentFormat& format, const Tensor& x0) {
  auto first = x0.select(0, 0).to(at::kCPU, at::kFloat);  // [C, h, w]
  if (first.dim() == 4) first = first.select(1, 0);
  auto factors = at::zeros({first.size(0), 3});
  for (std::int64_t c = 0;
       c < first.size(0) && c < static_cast<std::int64_t>(format.rgb_factors.size()); ++c)
    for (std::int64_t k = 0; k < 3; ++k) factors[c][k] = format.rgb_factors[c][k];
  auto rgb = at::matmul(first.movedim(0, -1), factors);
  rgb = rgb +
        at::tensor(std::vector<double>(format.rgb_bias.begin(), format.rgb_bias.end()), at::kFloat);
  return ((rgb + 1.0) / 2.0).clamp(0, 1).mul(255.0).to(at::kByte).contiguous();
}

}  // namespace distorch::nodes
