#include "distorch/nodes/control.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "distorch/device/device.h"
#include "distorch/models/control/borrowing.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/sampling/batch.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::Inputs;
using sampling::Conditioning;

namespace {

at::Device device_of(const LoadedControl& loaded) {
  return device::to_torch(loaded.weights->options().compute);
}

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool counts_at(const ControlUse& use, const sampling::ModelSampling& sampling, float sigma) {
  return sigma <= static_cast<float>(sampling.percent_to_sigma(use.start_percent)) &&
         sigma >= static_cast<float>(sampling.percent_to_sigma(use.end_percent));
}

std::shared_ptr<const ControlUse> with_open(const std::shared_ptr<const ControlUse>& use,
                                            const Model& model, ModelCache& models) {
  if (!use) return use;
  auto previous = with_open(use->previous, model, models);
  if (use->net.loaded && previous == use->previous) return use;
  auto opened = std::make_shared<ControlUse>(*use);
  opened->previous = previous;
  if (!use->net.loaded) {
    opened->net.loaded = models.control_over(*use->net.overlay, *model.loaded);
    opened->net.loras = opened->net.loaded->loras_over(model.loras);
  }
  return opened;
}

/// What the network does at a step, or once where it does nothing at steps, without values.
void run_dry(const models::control::ControlNetwork& network, const models::CallSizes& sizes,
             std::int64_t pixels, at::Device device) {
  if (!network.inputs().empty()) {
    network.apply(models::blank_inputs(network.inputs(), sizes, device));
    return;
  }
  auto format = network.hint();
  auto side = [&](std::size_t dim) {
    return round_up(sizes.cells.at(dim) * pixels, format.multiple);
  };
  network.encode(at::empty({1, format.channels, side(0), side(1)},
                           at::TensorOptions().device(device).dtype(at::kFloat)),
                 {});
}

/// Both by name; where they meet, the sum.
Inputs sum_of(Inputs first, const Inputs& second) {
  for (const auto& [name, value] : second.tensors()) {
    const auto& other = first[name];
    first.set(name, other.defined() ? other.to(value.device()) + value : value);
  }
  return first;
}

}  // namespace

bool ControlUse::equals(const sampling::Control& other) const {
  const auto& o = static_cast<const ControlUse&>(other);
  if (!(net == o.net && image.is_same(o.image) && vae.loaded == o.vae.loaded &&
        keep.is_same(o.keep) && strength == o.strength && start_percent == o.start_percent &&
        end_percent == o.end_percent))
    return false;
  if (previous == o.previous) return true;
  return previous && o.previous && previous->equals(*o.previous);
}

std::shared_ptr<const ControlUse> control_of(const sampling::ConditioningItem& item) {
  return std::static_pointer_cast<const ControlUse>(item.control);
}

Conditioning with_open_controls(Conditioning conditioning, const Model& model, ModelCache& models) {
  for (auto& item : conditioning) item.control = with_open(control_of(item), model, models);
  return conditioning;
}

void ControlRun::add(const Conditioning& conditioning, at::IntArrayRef x) {
  for (const auto& item : conditioning)
    for (auto use = control_of(item); use; use = use->previous) {
      if (std::find(nets_.begin(), nets_.end(), use->net) == nets_.end()) nets_.push_back(use->net);
      if (use->net.loaded->network->hint().latent) encoded(*use, x);
    }
}

std::set<std::string> ControlRun::input_names() const {
  std::set<std::string> names;
  for (const auto& net : nets_)
    for (const auto& place : net.loaded->network->places())
      names.insert(models::control::name_of(place));
  return names;
}

std::vector<streaming::Engine::Wanted> ControlRun::wanted(const models::CallSizes& sizes,
                                                          double steps) const {
  std::vector<streaming::Engine::Wanted> all;
  for (const auto& net : nets_) {
    auto known = std::find_if(all.begin(), all.end(),
                              [&](const auto& one) { return one.model == net.loaded->weights; });
    if (known != all.end()) continue;
    const auto& network = *net.loaded->network;
    streaming::RunNeeds needs;
    needs.key =
        fmt::format("{}x{} tokens {}", sizes.batch, fmt::join(sizes.cells, "x"), sizes.tokens);
    // An adapter runs once.
    needs.steps = network.inputs().empty() ? 1 : steps;
    needs.loras = net.loras;
    needs.profile = [loaded = net.loaded, sizes, pixels = pixels_](const RigDevice& compute) {
      auto fresh = loaded->make();
      return streaming::profile_model(
          *loaded->weights, fresh->manifest(), compute,
          [&](at::Device device) { run_dry(*fresh, sizes, pixels, device); });
    };
    all.push_back({net.loaded->weights, std::move(needs)});
  }
  return all;
}

Tensor ControlRun::hint_of(const ControlUse& use, std::int64_t height, std::int64_t width) const {
  auto hint = resize(use.image.movedim(-1, 1), {width, height, "nearest-exact", true});
  if (use.net.loaded->network->hint().channels == 1 && hint.size(1) > 1)
    hint = hint.mean(1, /*keepdim=*/true);
  return hint.to(device_of(*use.net.loaded), at::kFloat);
}

Tensor ControlRun::latent_hint(const ControlUse& use, at::IntArrayRef x) const {
  const auto& loaded = *use.net.loaded;
  if (!use.vae.loaded)
    throw Error(ErrorKind::Usage, loaded.weights->checkpoint().path(),
                "steers by a latent: connect the model's VAE to the node that applies it");
  VaeCoding coding(use.vae, engine_);
  auto height = x[x.size() - 2], width = x[x.size() - 1];
  const auto format = loaded.network->hint();
  auto picture = resize_image(
      use.image, {width * coding.factor(), height * coding.factor(), "nearest-exact", true});
  const auto preparation = models::control::preparation_of(*loaded.network);
  auto latent = coding.encode(picture * preparation.scale + preparation.offset);
  if (format.masked) {
    auto keep = use.keep.defined() ? resize(use.keep, {width, height, "nearest-exact", true})
                                   : at::ones({1, 1, height, width});
    auto shape = latent.sizes().vec();
    shape[1] = 1;
    if (latent.dim() == 5) keep = keep.unsqueeze(2);
    latent = at::cat({latent, keep.narrow(0, 0, 1).expand(shape)}, 1);
  }
  return latent.to(device_of(loaded), at::kFloat);
}

const Inputs& ControlRun::encoded(const ControlUse& use, at::IntArrayRef x) {
  const auto& loaded = *use.net.loaded;
  auto format = loaded.network->hint();
  auto side = [&](std::int64_t cells) { return round_up(cells * pixels_, format.multiple); };
  auto height = side(x[x.size() - 2]), width = side(x[x.size() - 1]);
  for (const auto& known : encoded_)
    if (known.net == &loaded && known.type == use.net.type && known.image.is_same(use.image) &&
        known.keep.is_same(use.keep) && known.height == height && known.width == width)
      return known.inputs;
  auto hint = format.latent ? latent_hint(use, x) : hint_of(use, height, width);
  auto inputs = loaded.network->encode(hint, use.net.type);
  return encoded_
      .emplace_back(&loaded, use.net.type, use.image, use.keep, height, width, std::move(inputs))
      .inputs;
}

/// The k-th of several hints is for the k-th latent, again from the first where there are too few.
Tensor ControlRun::spread(const Tensor& value, std::int64_t conditionings) const {
  if (value.size(0) == 1) return value;
  auto each = sampling::repeat_to(value, rows_);
  std::vector<std::int64_t> times(static_cast<std::size_t>(each.dim()), 1);
  times[0] = conditionings;
  return each.repeat(times);
}

Inputs ControlRun::own_residuals(const ControlUse& use, const Call& call) {
  const auto& loaded = *use.net.loaded;
  const auto& specs = loaded.network->inputs();
  const auto strength = models::control::preparation_of(*loaded.network).soft_strength
                            ? std::sqrt(std::max(use.strength, 0.0))
                            : use.strength;
  Inputs given;
  for (const auto& [name, value] : encoded(use, call.x).tensors())
    given.set(name, spread(value, call.facts.conditionings));
  Inputs result;
  if (specs.empty()) {
    for (const auto& [name, value] : given.tensors()) result.set(name, value * strength);
  } else {
    for (const auto& spec : specs)
      if (const auto& value = call.inputs[spec.name]; value.defined())
        given.set(spec.name, value.to(device_of(loaded)));
    auto packed = loaded.weights->step(
        models::in_order(specs, given), [&](const std::vector<Tensor>& tensors) {
          return loaded.network->apply(models::from_order(specs, tensors, given));
        });
    if (strength != 1.0) packed.mul_(strength);
    result = loaded.network->residuals(packed, call.x);
  }
  if (!loaded.averaged) return result;
  Inputs means;
  for (const auto& [name, value] : result.tensors())
    means.set(name, value.mean({2, 3}, /*keepdim=*/true).expand_as(value));
  return means;
}

Inputs ControlRun::residuals(const ControlUse& use, const Call& call) {
  Inputs before;
  if (use.previous) before = residuals(*use.previous, call);
  if (!counts_at(use, call.sampling, call.facts.sigma)) return before;
  return sum_of(std::move(before), own_residuals(use, call));
}

}  // namespace distorch::nodes
