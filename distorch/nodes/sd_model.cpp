#include "distorch/nodes/sd_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/nodes/resize.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using sampling::BatchedInputs;
using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInput;
using sampling::ModelInputs;

namespace {

/// Number of tokens of the largest call: prompts of unequal lengths are repeated to a common one,
/// up to four times.
std::int64_t common_tokens(const RunShape& shape) {
  std::int64_t shortest = 0, longest = 0, common = 1;
  for (const auto* list : {&shape.positive, &shape.negative})
    for (const auto& item : *list) {
      if (!item.cross_attn.defined()) continue;
      auto tokens = item.cross_attn.size(1);
      shortest = shortest == 0 ? tokens : std::min(shortest, tokens);
      longest = std::max(longest, tokens);
      if (common < (std::int64_t{1} << 40)) common = std::lcm(common, tokens);
    }
  if (longest == 0) return 77;
  return common <= 4 * shortest ? common : longest;
}

Tensor optional_tensor(const std::map<std::string, Tensor>& tensors, const char* name,
                       at::Device device) {
  auto at = tensors.find(name);
  return at == tensors.end() ? Tensor() : at->second.to(device, at::kFloat);
}

Tensor to_latent_size(const Tensor& x, const Tensor& noise) {
  if (x.sizes().slice(2) == noise.sizes().slice(2)) return x;
  return resize(x, {noise.size(3), noise.size(2), "bilinear", true});
}

/// Gray in pixels, as a latent of SD 1.x and 2.x. Numbers of ComfyUI comfy/model_base.py.
Tensor gray_latent(const Tensor& noise) {
  auto gray = at::ones_like(noise);
  const std::array<double, 4> values = {0.8223, -0.6876, 0.6364, 0.1380};
  for (std::int64_t c = 0; c < std::min<std::int64_t>(4, noise.size(1)); ++c)
    gray.select(1, c).mul_(values[c]);
  return gray;
}

}  // namespace

SdModel::SdModel(const Model& model)
    : loaded_(model.loaded),
      loras_(model.loras),
      device_(device::to_torch(loaded_->weights->options().compute)) {}

void SdModel::prepare(streaming::Engine& engine, const RunShape& shape) {
  loaded_->weights->set_loras(loras_);
  auto batch = shape.latent.at(0) * (shape.cfg == 1.0 ? 1 : 2);
  auto height = shape.latent.at(2), width = shape.latent.at(3);
  auto tokens = common_tokens(shape);
  planned_cells_ = batch * height * width;
  streaming::RunNeeds needs;
  needs.key =
      fmt::format("{}x{}x{} tokens {} loras {}", batch, height, width, tokens, loras_.size());
  needs.steps = shape.steps;
  needs.profile = [&](const RigDevice& compute) {
    return streaming::profile_model(*loaded_->weights, compute, [&](at::Device device) {
      auto options = at::TensorOptions().device(device).dtype(at::kFloat);
      auto channels = latent_channels();
      models::DiffusionInput input;
      input.x = at::empty({batch, channels, height, width}, options);
      input.timestep = at::empty({batch}, options);
      if (loaded_->context_width > 0)
        input.context = at::empty({batch, tokens, loaded_->context_width}, options);
      if (loaded_->in_channels > channels)
        input.concat = at::empty({batch, loaded_->in_channels - channels, height, width}, options);
      loaded_->network->apply(input);
    });
  };
  engine.prepare(loaded_->weights, needs);
}

Tensor SdModel::apply(const Tensor& x, const Tensor& sigma, const BatchedInputs& inputs) {
  auto network = [&](const Tensor& scaled, const Tensor& timestep) {
    auto find = [&](const char* name) {
      auto at = inputs.find(name);
      return at == inputs.end() ? Tensor() : at->second;
    };
    return loaded_->weights->step(
        {scaled, timestep.to(at::kFloat), find("c_crossattn"), find("c_concat")},
        [network = loaded_->network.get()](const std::vector<Tensor>& in) {
          return network->apply({in[0], in[1], in[2], in[3], {}});
        });
  };
  return sampling::predict_x0(*loaded_->sampling, x, sigma, network);
}

ModelInputs SdModel::encode(const ConditioningItem& item, const EncodeContext& context) const {
  auto inputs = X0Model::encode(item, context);
  if (loaded_->in_channels > latent_channels())
    inputs["c_concat"] = {ModelInput::Kind::NoiseShape,
                          concat_of(item, context).to(device_, at::kFloat)};
  return inputs;
}

Tensor SdModel::concat_of(const ConditioningItem& item, const EncodeContext& context) const {
  const auto& noise = context.noise;
  auto given = optional_tensor(item.tensors, "concat_latent_image", noise.device());
  auto additional = loaded_->in_channels - latent_channels();
  if (additional ==
      latent_channels()) {  // editing by instruction: the picture to edit, in the VAE's scale
    auto image = given.defined() ? given : at::zeros_like(noise);
    return fit_batch(to_latent_size(image, noise), noise.size(0));
  }
  if (additional != latent_channels() + 1)
    throw Error(ErrorKind::Usage, loaded_->weights->options().name,
                fmt::format("wants {} input channels beside the latent; distorch knows models with "
                            "{} (editing) and {} (inpainting)",
                            additional, latent_channels(), latent_channels() + 1));
  auto mask = optional_tensor(item.tensors, "concat_mask", noise.device());
  if (!mask.defined()) mask = context.denoise_mask;
  if (!mask.defined())
    return at::cat({at::ones_like(noise.narrow(1, 0, 1)), gray_latent(noise)}, 1);
  if (mask.dim() == noise.dim()) mask = mask.narrow(1, 0, 1);
  mask = to_latent_size(mask.reshape({-1, 1, mask.size(-2), mask.size(-1)}), noise);
  auto image = given.defined() ? process_latent_in(given) : context.latent_image;
  return at::cat({fit_batch(mask.round(), noise.size(0)),
                  fit_batch(to_latent_size(image, noise), noise.size(0))},
                 1);
}

bool SdModel::fits(at::IntArrayRef x_shape, const std::vector<const ModelInputs*>&) const {
  return planned_cells_ == 0 || x_shape[0] * x_shape[2] * x_shape[3] <= planned_cells_;
}

Tensor SdModel::process_latent_in(const Tensor& latent) const {
  const auto& format = loaded_->family->latent;
  return (format.shift == 0 ? latent : latent - format.shift) * format.scale_factor;
}

Tensor SdModel::process_latent_out(const Tensor& latent) const {
  const auto& format = loaded_->family->latent;
  auto scaled = latent / format.scale_factor;
  return format.shift == 0 ? scaled : scaled + format.shift;
}

Tensor preview_pixels(const models::LatentFormat& format, const Tensor& x0) {
  auto first = x0.select(0, 0).to(at::kCPU, at::kFloat);  // [C, h, w]
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
