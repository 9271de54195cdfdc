// XLabs' IP-Adapter for FLUX.1. Source: XLabs-AI x-flux-comfyui, nodes.py, clip.py and layers.py.
#include <fmt/format.h>

#include <atomic>

#include "distorch/base/error.h"
#include "distorch/models/flux/family.h"
#include "distorch/nodes/changed_model.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/one_call.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize_bytes.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/nodes/vision_states.h"
#include "distorch/nodes/xlabs.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::link;
using graph::number;
using graph::Value;
using models::flux::ImagePromptAdapter;

namespace {

using LoadedAdapter = Loaded<ImagePromptAdapter>;
using OpenAdapters = WeakCache<LoadedAdapter>;

/// What travels over links of type IP_ADAPTER_FLUX.
struct ImageAdapter {
  std::shared_ptr<LoadedAdapter> adapter;
  ClipVision vision;
};

std::shared_ptr<LoadedAdapter> open_adapter(ModelCache& models, OpenAdapters& open,
                                            const std::filesystem::path& path,
                                            const streaming::PlacementRequest& placement) {
  auto& engine = models.engine();
  streaming::StreamedOptions options;
  options.name = path.stem().string() + " (IP-Adapter)";
  options.compute = engine.device_for(placement.compute);
  options.dtype = text_dtype(models.settings(), engine.describe(options.compute));
  const auto key = fmt::format("{}|{}|{}", ModelCache::identity(path), options.compute,
                               c10::toString(options.dtype));
  if (auto loaded = open.find(key)) return loaded;
  const auto part = models::flux::image_prompt_part(models.checkpoint(path));
  auto loaded = std::make_shared<LoadedAdapter>();
  loaded->identity = key;
  loaded->placement = placement;
  loaded->make = [config = models::flux::image_prompt_config(part)] {
    return std::make_unique<ImagePromptAdapter>(config);
  };
  loaded->network = loaded->make();
  stream_weights(engine, *loaded, part, options, placement, false);
  open.keep(key, loaded);
  return loaded;
}

/// "provider" names the device of the picture encoder and the adapter; the original computes them on
/// the CPU whatever it says.
void run_load(Call& call, OpenAdapters& open) {
  const auto& folders = call.context<ModelFolders>();
  const auto path = folders.get("xlabs_ipadapters", call.text("ipadatper"));
  const auto vision = folders.get("clip_vision", call.text("clip_vision"));
  streaming::PlacementRequest placement;
  if (call.text("provider") == "CPU") placement.compute = "cpu";
  auto& models = call.context<ModelCache>();
  ImageAdapter result{open_adapter(models, open, path, placement),
                      {models.vision(vision, placement)}};
  if (!result.vision.loaded)
    throw Error(ErrorKind::Format, vision.string(),
                "holds no picture encoder; XLabs' IP-Adapters go with CLIP ViT-L/14");
  call.out(0, Value::of("IP_ADAPTER_FLUX", std::move(result)));
}

/// What the encoder says about the pictures and about none, [n, width] each: about black ones, or
/// where the encoder is not the one that the adapters are made for about pixels of 0.
std::pair<Tensor, Tensor> looked_at(Call& call, const ClipVision& vision, const Tensor& pictures) {
  const auto& config = vision.loaded->network->config();
  constexpr std::int64_t usual_size = 224;
  Tensor seen, nothing;
  if (config.kind == models::clip_vision::VisionKind::ClipL && config.image_size == usual_size) {
    std::vector<Tensor> all;
    for (const auto& picture : pictures.unbind(0))
      all.push_back(clip_processor_pixels(picture, usual_size));
    seen = at::cat(all);
    nothing = clip_processor_pixels(at::zeros_like(pictures.select(0, 0)), usual_size);
  } else {
    seen = models::clip_vision::prepared(pictures, config, true);
    nothing = at::zeros_like(seen.narrow(0, 0, 1));
  }
  auto embeds = look_at_pixels(call, vision, at::cat({seen, nothing})).embeds;
  if (embeds.dim() != 2)
    throw Error(ErrorKind::Usage, call.place(),
                vision.loaded->weights->options().name +
                    " describes pictures by tokens; XLabs' IP-Adapters go with CLIP ViT-L/14");
  const auto count = pictures.size(0);
  return {embeds.narrow(0, 0, count), embeds.narrow(0, count, 1).expand({count, -1})};
}

/// Refuses an adapter for another size of model.
void check_fit(const Call& call, const LoadedDiffusion& model, const LoadedAdapter& adapter) {
  const auto& config = adapter.network->config();
  const auto name = models::flux::image_prompt_name(0);
  for (const auto& spec : model.network->inputs()) {
    if (spec.name != name) continue;
    const auto blocks = spec.shape[1].value / 2, hidden = spec.shape[4].value;
    if (blocks == config.blocks && hidden == config.hidden) return;
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("{} is for {} double blocks of width {}, {} has {} of width {}",
                            adapter.weights->checkpoint().path(), config.blocks, config.hidden,
                            model.weights->checkpoint().path(), blocks, hidden));
  }
  throw Error(ErrorKind::Usage, call.place(),
              fmt::format("{} is {}, and IP-Adapters of XLabs are for FLUX.1",
                          model.weights->checkpoint().path(), model.family->name()));
}

/// What an adapter says about pictures that an encoder described, [n, width] each; `strengths` by
/// double block.
models::flux::ImagePrompt told_by(Call& call, const LoadedAdapter& adapter, const Tensor& seen,
                                  const Tensor& nothing, const std::vector<double>& strengths) {
  const auto count = seen.size(0);
  const auto& config = adapter.network->config();
  const auto computed =
      run_network(call, adapter, at::cat({seen, nothing}),
                  [](const auto& network, const Tensor& x) { return network.forward(x); });
  const bool plan_only = call.context<streaming::Engine>().plan_only();
  auto heads = plan_only
                   ? at::zeros({1, 2 * config.blocks, 2 * count, config.tokens, config.hidden})
                   : computed.to(at::kCPU, at::kFloat).clone();
  // The mean over the pictures, each of them as strong as the block says.
  for (std::int64_t block = 0; block < config.blocks; ++block)
    heads.select(1, 2 * block + 1)
        .mul_(strengths[static_cast<std::size_t>(block)] / static_cast<double>(count));
  return {heads.narrow(2, 0, count).contiguous(), heads.narrow(2, count, count).contiguous()};
}

/// The model that looks, beside what it looks at already, at those pictures.
void put_out(Call& call, const LoadedAdapter& adapter, const Tensor& seen, const Tensor& nothing,
             const std::vector<double>& strengths) {
  auto model = call.get<Model>("model");
  check_fit(call, *model.loaded, adapter);
  static std::atomic<int> count = 0;
  model.loaded =
      changed_model(*model.loaded,
                    {.key = fmt::format("picture {} beside the text", ++count),
                     .family = models::flux::looking_at(
                         *model.loaded->family, told_by(call, adapter, seen, nothing, strengths)),
                     .dtype = {}},
                    call.context<streaming::Engine>());
  call.out(0, Value::of("MODEL", std::move(model)));
}

void run_apply(Call& call) {
  const auto& ip = call.get<ImageAdapter>("ip_adapter_flux");
  auto [seen, nothing] = looked_at(call, ip.vision, match_channels(image_input(call, "image"), 3));
  const std::vector<double> strengths(
      static_cast<std::size_t>(ip.adapter->network->config().blocks), call.number("ip_scale"));
  put_out(call, *ip.adapter, seen, nothing, strengths);
}

void run_apply_advanced(Call& call) {
  const auto& ip = call.get<ImageAdapter>("ip_adapter_flux");
  auto [seen, nothing] = looked_at(call, ip.vision, match_channels(image_input(call, "image"), 3));
  const auto strengths = models::flux::block_strengths(
      call.text("smothing_type"), call.number("begin_strength"), call.number("end_strength"),
      ip.adapter->network->config().blocks);
  put_out(call, *ip.adapter, seen.mean(0, /*keepdim=*/true), nothing.narrow(0, 0, 1), strengths);
}

}  // namespace

Tensor clip_processor_pixels(const Tensor& picture, std::int64_t size) {
  const auto bytes = (picture.to(at::kCPU, at::kFloat) * 255.0).clamp(0, 255).round().to(at::kByte);
  const auto height = bytes.size(0), width = bytes.size(1);
  const auto longer =
      static_cast<std::int64_t>(static_cast<double>(size * std::max(height, width)) /
                                static_cast<double>(std::min(height, width)));
  const bool upright = height > width;
  auto resized =
      resize_bicubic_bytes(bytes.contiguous(), upright ? size : longer, upright ? longer : size);
  auto cut = resized.narrow(0, (resized.size(0) - size) / 2, size)
                 .narrow(1, (resized.size(1) - size) / 2, size);
  auto shares = (cut.to(at::kDouble) * (1.0 / 255.0)).to(at::kFloat);
  const auto mean = at::tensor({0.48145466f, 0.4578275f, 0.40821073f}),
             spread = at::tensor({0.26862954f, 0.26130258f, 0.27577711f});
  return ((shares - mean) / spread).permute({2, 0, 1}).unsqueeze(0).contiguous();
}

void add_xlabs_prompt_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<OpenAdapters>();
  catalog.add({
      .name = "LoadFluxIPAdapter",
      .display_name = "Load Flux IPAdatpter",
      .category = kXlabsCategory,
      .python_module = kXlabsModule,
      .inputs = {choice("ipadatper", model_choices(app, "xlabs_ipadapters")),
                 choice("clip_vision", model_choices(app, "clip_vision")),
                 choice("provider", {"CPU", "GPU"})},
      .outputs = {{"IP_ADAPTER_FLUX", "ipadapterFlux"}},
      .run = [open](Call& call) { run_load(call, *open); },
      .change_key =
          when_replaced(app, {{"xlabs_ipadapters", "ipadatper"}, {"clip_vision", "clip_vision"}}),
  });
  auto strength = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = -100.0, .max = 100.0, .step = 0.01});
  };
  auto apply = [&](const char* name, const char* display, std::vector<graph::Input> more,
                   void (*run)(Call&)) {
    graph::NodeType type{
        .name = name,
        .display_name = display,
        .category = kXlabsCategory,
        .description = "FLUX.1 looks at pictures beside the text.",
        .python_module = kXlabsModule,
        .inputs = {link("model", "MODEL"), link("ip_adapter_flux", "IP_ADAPTER_FLUX"),
                   link("image", "IMAGE")},
        .outputs = {"MODEL"},
        .run = run,
    };
    type.inputs.insert(type.inputs.end(), more.begin(), more.end());
    catalog.add(std::move(type));
  };
  apply("ApplyFluxIPAdapter", "Apply Flux IPAdapter",
        {number("ip_scale", {.def = 0.93, .min = 0.0, .max = 1.0, .step = 0.001})}, run_apply);
  apply("ApplyAdvancedFluxIPAdapter", "Apply Advanced Flux IPAdapter",
        {strength("begin_strength", 0.0), strength("end_strength", 1.0),
         choice("smothing_type", {"Linear", "First half", "Second half", "Sigmoid"})},
        run_apply_advanced);
}

}  // namespace distorch::nodes
