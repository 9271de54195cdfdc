#include "distorch/models/flux/family.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/flux/config.h"
#include "distorch/models/flux/lora_names.h"
#include "distorch/models/flux/network.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/widened.h"

namespace distorch::models::flux {

using sampling::ConditioningItem;
using sampling::EncodeContext;
using weights::Checkpoint;

namespace {

constexpr double kGuidance = 3.5;            // where a conditioning says nothing
constexpr double kShift = 1.15;              // of FLUX.1's noise levels
constexpr double kSecondShift = 2.02;        // of FLUX.2's
constexpr std::int64_t kSecondTokens = 512;  // FLUX.2 knows texts of this length
constexpr std::int64_t kPixels = 8;          // of a side of the picture, a latent cell

/// What further channels of the latent hold. Source: ComfyUI comfy/model_base.py, Flux.concat_cond.
at::Tensor concat_of(const ConditioningItem& item, const EncodeContext& context,
                     const LatentFormat& format, std::int64_t channels) {
  const auto& noise = context.noise;
  auto image = tensor_of(item, "concat_latent_image", noise);
  if (!image.defined()) image = at::zeros_like(noise);
  image = format.into_network(fit_to_noise(image, noise));
  if (channels <= format.channels) return image;
  // A mask of the picture's size, its 8x8 pixels of a cell as channels.
  auto mask = tensor_of(item, "concat_mask", noise);
  if (!mask.defined()) mask = context.denoise_mask;
  if (!mask.defined()) mask = at::ones_like(noise.narrow(1, 0, 1));
  if (mask.dim() < 4) mask = mask.reshape({-1, 1, mask.size(-2), mask.size(-1)});
  auto h = noise.size(2), w = noise.size(3);
  auto pixels = at::empty({noise.size(0), 1, h * kPixels, w * kPixels},
                          at::TensorOptions().device(at::kMeta));
  mask = fit_to_noise(mask.mean(1, /*keepdim=*/true), pixels);
  auto cells = mask.view({mask.size(0), h, kPixels, w, kPixels})
                   .permute({0, 2, 4, 1, 3})
                   .reshape({mask.size(0), kPixels * kPixels, h, w});
  return at::cat({image, cells}, 1);
}

/// A mask over text tokens and, in its last row and column, all of the picture, as one over all
/// tokens. Source: ComfyUI comfy/utils.py, upscale_dit_mask.
at::Tensor over_all_tokens(const at::Tensor& mask, const at::Tensor& noise, std::int64_t patch) {
  auto text = mask.size(1) - 1;
  auto tokens = [&](int dim) { return (noise.size(dim) + patch - 1) / patch; };
  auto rows = at::cat({at::arange(text, at::kLong),
                       at::full({tokens(2) * tokens(3)}, text, at::TensorOptions(at::kLong))});
  return mask.index_select(1, rows).index_select(2, rows);
}

double method_of(const std::string& name, ReferenceMethod otherwise) {
  auto method = name == "index"                 ? ReferenceMethod::Index
                : name == "uxo"                 ? ReferenceMethod::Uxo
                : name == "index_timestep_zero" ? ReferenceMethod::IndexTimestepZero
                : name == "offset"              ? ReferenceMethod::Offset
                                                : otherwise;
  return static_cast<double>(method);
}

class FluxFamily : public Family, public Widened {
 public:
  FluxFamily(Checkpoint tensors, LatentFormat latent)
      : tensors_(std::move(tensors)), config_(config_of(tensors_)), latent_(std::move(latent)) {}

  std::string name() const override { return "FLUX.1"; }
  const Checkpoint& diffusion() const override { return tensors_; }
  std::unique_ptr<Network> make_network() const override { return std::make_unique<Flux>(config_); }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return config_.guidance ? sampling::flux_sampling(kShift) : sampling::flow_sampling(1.0, 1.0);
  }
  const LatentFormat& latent() const override { return latent_; }
  LoraNames lora_names(const weights::Manifest& network) const override {
    return flux_lora_names(config_, network);
  }
  InputSpec with_shapes(
      InputSpec spec,
      const std::map<std::string, std::vector<std::int64_t>>& weights) const override {
    auto in = weights.find("img_in.weight");
    if (spec.name != "concat" || in == weights.end()) return spec;
    auto channels = in->second.at(1) / (config_.patch * config_.patch) - config_.out_channels;
    if (channels > 0) spec.shape[1] = Extent::number(channels);
    return spec;
  }
  TextRecipe text(const Checkpoint& file) const override { return checkpoint_recipe(file, "flux"); }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  sampling::ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                              const EncodeContext& context) const override;
  /// From now on.
  void keep_references() {
    config_.keeps_references = true;
    config_.reference = ReferenceMethod::IndexTimestepZero;
  }
  void look_at(ImagePrompt prompt) {
    if (static_cast<std::int64_t>(prompts_.size()) >= kMostImagePrompts)
      throw Error(
          ErrorKind::Usage, tensors_.path(),
          fmt::format("looks at pictures of {} adapters already, which is as many as it can",
                      prompts_.size()));
    prompts_.push_back(std::move(prompt));
  }

 protected:
  sampling::ModelInput reference(const InputSpec& spec, const ConditioningItem& item) const;

  Checkpoint tensors_;
  Config config_;
  LatentFormat latent_;
  std::vector<ImagePrompt> prompts_;
};

sampling::ModelInput FluxFamily::encode(const InputSpec& spec, const ConditioningItem& item,
                                        const EncodeContext& context) const {
  if (spec.name == "context") return {spec.kind, item.cross_attn, {}};
  if (spec.name == "vector") return {spec.kind, item.pooled_output, {}};
  if (spec.name.starts_with("image_prompt.")) {
    for (std::size_t i = 0; i < prompts_.size(); ++i)
      if (spec.name == image_prompt_name(static_cast<std::int64_t>(i)))
        return {spec.kind, context.positive ? prompts_[i].positive : prompts_[i].negative, {}};
    return {spec.kind, {}, {}};
  }
  if (spec.name == "guidance") {
    if (item.numbers.count("no_guidance")) return {spec.kind, {}, {}};
    auto at = item.numbers.find("guidance");
    return {spec.kind, at::full({1}, at == item.numbers.end() ? kGuidance : at->second), {}};
  }
  if (spec.name == "attention_mask") {
    auto mask = item.tensors.find("attention_mask");
    if (mask == item.tensors.end() || mask->second.dim() != 3) return {spec.kind, {}, {}};
    return {spec.kind, over_all_tokens(mask->second, context.noise, config_.patch), {}};
  }
  if (spec.name == "concat") {
    // Neither the model nor a LoRA has further channels.
    if (spec.shape[1].of != Extent::Of::Number) return {spec.kind, {}, {}};
    return {spec.kind, concat_of(item, context, latent_, spec.shape[1].value), {}};
  }
  return reference(spec, item);
}

sampling::ModelInput FluxFamily::reference(const InputSpec& spec,
                                           const ConditioningItem& item) const {
  const auto& pictures = item.reference_latents;
  if (static_cast<std::int64_t>(pictures.size()) > kMostReferences)
    throw Error(ErrorKind::Usage, name(),
                fmt::format("takes at most {} reference pictures, got {}", kMostReferences,
                            pictures.size()));
  if (spec.name == "reference_method") {
    auto method = item.texts.find("reference_latents_method");
    if (pictures.empty() || method == item.texts.end()) return {spec.kind, {}, {}};
    return {spec.kind, {}, method_of(method->second, config_.reference)};
  }
  for (std::size_t i = 0; i < pictures.size(); ++i)
    if (spec.name == reference_name(static_cast<std::int64_t>(i)))
      return {spec.kind, latent_.into_network(pictures[i]), {}};
  return {spec.kind, {}, {}};
}

class SecondFamily final : public FluxFamily {
 public:
  explicit SecondFamily(Checkpoint tensors) : FluxFamily(std::move(tensors), flux2_latent()) {}
  std::string name() const override { return "FLUX.2"; }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::flux_sampling(kSecondShift);
  }
  TextRecipe text(const Checkpoint& file) const override {
    return checkpoint_recipe(file, "flux2");
  }
  sampling::ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                              const EncodeContext& context) const override {
    auto input = FluxFamily::encode(spec, item, context);
    // A shorter text begins with nothing.
    if (spec.name == "context" && input.value.defined() && input.value.size(1) < kSecondTokens)
      input.value =
          at::constant_pad_nd(input.value, {0, 0, kSecondTokens - input.value.size(1), 0});
    return input;
  }
};

bool is_second(const Checkpoint& tensors) {
  return tensors.has("double_stream_modulation_img.lin.weight");
}

template <class Kind, class Change>
std::shared_ptr<const Family> changed(const Kind& family, const Change& change) {
  auto copy = std::make_shared<Kind>(family);
  change(*copy);
  return copy;
}

/// The family otherwise; null where it is no FLUX.
template <class Change>
std::shared_ptr<const Family> changed_flux(const Family& family, const Change& change) {
  if (const auto* second = dynamic_cast<const SecondFamily*>(&family))
    return changed(*second, change);
  if (const auto* first = dynamic_cast<const FluxFamily*>(&family)) return changed(*first, change);
  return nullptr;
}

}  // namespace

std::shared_ptr<const Family> keeping_references(const Family& family) {
  return changed_flux(family, [](FluxFamily& copy) { copy.keep_references(); });
}

std::shared_ptr<const Family> looking_at(const Family& family, ImagePrompt prompt) {
  return changed_flux(family, [&](FluxFamily& copy) { copy.look_at(std::move(prompt)); });
}

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto tensors = flux_tensors(below);
  if (tensors.empty() || is_second(tensors)) return nullptr;
  return std::make_unique<FluxFamily>(std::move(tensors), flux_latent());
}

std::unique_ptr<const Family> detect_second(const Checkpoint& below, const Checkpoint&) {
  auto tensors = flux_tensors(below);
  if (tensors.empty() || !is_second(tensors)) return nullptr;
  return std::make_unique<SecondFamily>(std::move(tensors));
}

}  // namespace distorch::models::flux
