#include "distorch/models/sdxl/family.h"

#include "distorch/models/clip/recipes.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd/unet_family.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/timed_inputs.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::sdxl {

using sampling::ConditioningItem;
using weights::Checkpoint;

namespace {

constexpr std::int64_t kPooledWidth = 1280;  // of OpenCLIP-G
constexpr std::int64_t kSizeWidth = 256;     // of the embedding of one number

/// What a checkpoint's training was, told by marks beside its weights. Source: ComfyUI
/// comfy/supported_models.py, SDXL.model_type.
struct Training {
  explicit Training(const Checkpoint& file) {
    using sampling::Prediction;
    if (file.has("edm_mean") && file.has("edm_std")) {
      latent = playground_latent();
      sampling = sampling::continuous_edm_sampling(Prediction::Edm, 0.002, 80.0, 0.5);
    } else if (file.has("edm_vpred.sigma_max")) {
      edm_velocity = true;
      sampling = sampling::continuous_edm_sampling(
          Prediction::V, number_in(file, "edm_vpred.sigma_min", 0.002),
          number_in(file, "edm_vpred.sigma_max", 120.0), 1.0);
    } else if (file.has("v_pred")) {
      sampling = sampling::discrete_sampling(
          {.prediction = Prediction::V, .zero_terminal_snr = file.has("ztsnr")});
    } else {
      sampling = sampling::discrete_sampling();
    }
  }
  LatentFormat latent = sdxl_latent();
  std::shared_ptr<const sampling::ModelSampling> sampling;
  bool edm_velocity = false;  // CosXL
};

double number_of(const ConditioningItem& item, const char* name, double otherwise) {
  auto at = item.numbers.find(name);
  return at == item.numbers.end() ? otherwise : at->second;
}

/// Height and width of the picture that the conditioning speaks of; what is not said is the
/// latent's.
struct Sizes {
  Sizes(const ConditioningItem& item, const sampling::EncodeContext& context, double downscale)
      : height(number_of(item, "height", static_cast<double>(context.noise.size(2)) * downscale)),
        width(number_of(item, "width", static_cast<double>(context.noise.size(3)) * downscale)) {}
  double height, width;
};

/// The pooled text with the embeddings of numbers behind it: [B, pooled + 256 * count].
at::Tensor with_numbers(const at::Tensor& pooled, const std::vector<double>& numbers) {
  if (!pooled.defined()) return {};
  auto values = at::tensor(numbers, at::kFloat);
  auto embedded = nn::timestep_embedding(values, kSizeWidth).reshape({1, -1});
  return at::cat({pooled.to(at::kCPU, at::kFloat), embedded.repeat({pooled.size(0), 1})}, 1);
}

class Base : public sd::UNetFamily, public TimedInputs {
 public:
  Base(Checkpoint unet, Training training)
      : UNetFamily(std::move(unet), training.latent), training_(std::move(training)) {}
  std::string name() const override { return "SDXL"; }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return training_.sampling;
  }
  TextRecipe text(const Checkpoint& file) const override {
    return clip::sdxl_recipe(clip::text_part_below(file, "conditioner.embedders.0.transformer."),
                             clip::text_part_below(file, "conditioner.embedders.1.model."));
  }
  sampling::ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                              const sampling::EncodeContext& context) const override;
  bool counts(const std::string& input, float sigma) const override {
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      const auto index = static_cast<std::int64_t>(i);
      if (input == sd::prompt_input(index) || input == sd::prompt_mask_input(index))
        return sigma <= prompts_[i].sigma_start && sigma >= prompts_[i].sigma_end;
    }
    return true;
  }
  void look_at(sd::ImagePrompt prompt) {
    prompts_.push_back(std::move(prompt));
    ++config_.image_prompts;
  }

 private:
  Training training_;
  std::vector<sd::ImagePrompt> prompts_;
};

/// One mask for each picture of a batch: those that are missing are as the last one.
at::Tensor mask_for(const at::Tensor& mask, std::int64_t batch) {
  if (!mask.defined() || mask.size(0) >= batch)
    return mask.defined() ? mask.narrow(0, 0, batch) : mask;
  const auto last = mask.narrow(0, mask.size(0) - 1, 1);
  return at::cat({mask, last.expand({batch - mask.size(0), -1, -1})});
}

sampling::ModelInput Base::encode(const InputSpec& spec, const ConditioningItem& item,
                                  const sampling::EncodeContext& context) const {
  if (spec.name == "vector") {
    Sizes size(item, context, static_cast<double>(latent_.downscale));
    return {spec.kind,
            with_numbers(item.pooled_output, {size.height, size.width, number_of(item, "crop_h", 0),
                                              number_of(item, "crop_w", 0),
                                              number_of(item, "target_height", size.height),
                                              number_of(item, "target_width", size.width)}),
            {}};
  }
  for (std::size_t i = 0; i < prompts_.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    const auto& prompt = prompts_[i];
    if (spec.name == sd::prompt_input(index))
      return {spec.kind, context.positive ? prompt.positive : prompt.negative, {}};
    if (spec.name == sd::prompt_mask_input(index))
      return {spec.kind, mask_for(prompt.mask, context.noise.size(0)), {}};
    if (spec.name == sd::prompt_join_input(index))
      return {spec.kind, {}, static_cast<double>(prompt.join)};
  }
  auto input = UNetFamily::encode(spec, item, context);
  // CosXL's editing model takes the picture in the network's scale.
  bool edits = config_.in_channels - config_.out_channels == latent_.channels;
  if (spec.name == "concat" && edits && training_.edm_velocity)
    input.value = latent_.into_network(input.value);
  return input;
}

class Refiner : public sd::UNetFamily {
 public:
  explicit Refiner(Checkpoint unet) : UNetFamily(std::move(unet), sdxl_latent()) {}
  std::string name() const override { return "SDXL refiner"; }
  TextRecipe text(const Checkpoint& file) const override {
    return clip::single_recipe(clip::text_part_below(file, "conditioner.embedders.0.model."),
                               clip::TextKind::ClipG);
  }
  sampling::ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                              const sampling::EncodeContext& context) const override {
    if (spec.name != "vector") return UNetFamily::encode(spec, item, context);
    Sizes size(item, context, static_cast<double>(latent_.downscale));
    // What the negative prompt stands for is a picture that nobody likes.
    auto score = number_of(item, "aesthetic_score", context.positive ? 6 : 2.5);
    return {spec.kind,
            with_numbers(item.pooled_output, {size.height, size.width, number_of(item, "crop_h", 0),
                                              number_of(item, "crop_w", 0), score}),
            {}};
  }
};

/// A UNet whose vector holds a pooled text and so many numbers; else empty.
Checkpoint unet_with(const Checkpoint& below, std::int64_t numbers) {
  auto unet = sd::unet_tensors(below);
  const auto* vector = unet.find("label_emb.0.0.weight");
  if (!vector || vector->shape.size() != 2 ||
      vector->shape[1] != kPooledWidth + numbers * kSizeWidth ||
      sd::has_linear_projection(unet) != true)
    return {};
  return unet;
}

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint& file) {
  auto unet = unet_with(below, 6);
  if (unet.empty()) return nullptr;
  return std::make_unique<Base>(std::move(unet), Training(file));
}

std::shared_ptr<const Family> looking_at(const Family& family, sd::ImagePrompt prompt) {
  const auto* base = dynamic_cast<const Base*>(&family);
  if (!base) return nullptr;
  auto copy = std::make_shared<Base>(*base);
  copy->look_at(std::move(prompt));
  return copy;
}

const sd::UNetConfig* config_of(const Family& family) {
  const auto* base = dynamic_cast<const Base*>(&family);
  return base ? &base->config() : nullptr;
}

std::unique_ptr<const Family> detect_refiner(const Checkpoint& below, const Checkpoint&) {
  auto unet = unet_with(below, 5);
  if (unet.empty()) return nullptr;
  return std::make_unique<Refiner>(std::move(unet));
}

}  // namespace distorch::models::sdxl
