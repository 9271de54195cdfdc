// The nodes of the WanVideoWrapper's control networks: loaders, and what says how they are used.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/weak_cache.h"
#include "distorch/models/wan/control_net.h"
#include "distorch/models/wan/uni3c.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/nodes/wan_wrapper_control.h"
#include "distorch/nodes/wan_wrapper_models.h"

namespace distorch::nodes::wan_wrapper {

using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
namespace wan = models::wan;

namespace {

using LoadedNetwork = Loaded<models::Network>;
/// Networks that are open: the same file for the same device and precision exists once.
using OpenNetworks = WeakCache<LoadedNetwork>;

/// A file's tensors under our names, and how a network of its sizes is made.
struct Found {
  weights::Checkpoint part;
  std::function<std::unique_ptr<models::Network>()> make;
};

Found find_control_net(const weights::Checkpoint& file) {
  auto part = wan::control_net_part(file);
  return {part, [config = wan::control_net_config(part)] {
            return std::make_unique<wan::ControlNet>(config);
          }};
}

Found find_uni3c(const weights::Checkpoint& file) {
  return {file,
          [config = wan::uni3c_config(file)] { return std::make_unique<wan::Uni3C>(config); }};
}

/// The types that weights rest in and that the network computes in, as the loader's choices say.
void choose_types(const Call& call, const std::filesystem::path& path, ModelCache& models,
                  streaming::StreamedOptions& options) {
  const auto precision = call.text("base_precision");
  if (precision != "fp32")
    options.dtype = unet_dtype(models.settings(), models.engine().describe(options.compute),
                               precision == "bf16" ? formats::DType::BF16 : formats::DType::F16);
  const auto kept = weight_dtype_of(path, call.text("quantization"));
  if (kept.starts_with("fp8_e4m3fn")) options.kept_in = at::kFloat8_e4m3fn;
  if (kept.starts_with("fp8_e5m2")) options.kept_in = at::kFloat8_e5m2;
}

/// A network with its weights wherever there is room; "device" of a MultiGPU node says what computes.
void load(Call& call, OpenNetworks& open, Found (*find)(const weights::Checkpoint&)) {
  auto& models = call.context<ModelCache>();
  const auto path = call.context<ModelFolders>().get("controlnet", call.text("model"));
  streaming::PlacementRequest placement;
  placement.compute = named_device(call);
  streaming::StreamedOptions options;
  options.name = path.stem().string() + " (ControlNet)";
  options.compute = models.engine().device_for(placement.compute);
  choose_types(call, path, models, options);
  const auto key = fmt::format("{}|{}|{}|{}|{}", ModelCache::identity(path), call.text("model"),
                               options.compute, c10::toString(options.dtype),
                               options.kept_in ? c10::toString(*options.kept_in) : "");
  auto loaded = open.find(key);
  if (!loaded) {
    auto found = find(models.checkpoint(path));
    loaded = std::make_shared<LoadedNetwork>();
    loaded->make = std::move(found.make);
    loaded->network = loaded->make();
    loaded->identity = key;
    loaded->placement = placement;
    constexpr bool many_steps = true;
    stream_weights(models.engine(), *loaded, found.part, options, placement, many_steps);
    open.keep(key, loaded);
  }
  call.out(0, Value::of("WANVIDEOCONTROLNET", WanControl{std::move(loaded), path}));
}

/// The network of an input, which two kinds of loaders give: it has to be a `Network`.
template <class Network>
WanControl control_input(const Call& call, const char* loader) {
  auto net = call.get<WanControl>("controlnet");
  if (!dynamic_cast<const Network*>(net.loaded->network.get()))
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("'controlnet' is {}, which is of the other kind: load one with {}",
                            net.file.string(), loader));
  return net;
}

void run_apply(Call& call) {
  FollowedVideo video{.net = control_input<wan::ControlNet>(call, "WanVideoControlnetLoader"),
                      .images = match_channels(image_input(call, "control_images"), 3),
                      .strength = call.number("strength"),
                      .stride = call.integer("control_stride"),
                      .start = call.number("control_start_percent"),
                      .end = call.number("control_end_percent")};
  auto model = call.get<WanModel>("model");
  model.followed = std::make_shared<const FollowedVideo>(std::move(video));
  call.out(0, Value::of("WANVIDEOMODEL", std::move(model)));
}

void run_embeds(Call& call) {
  if (call.has("render_mask"))
    throw Error(ErrorKind::Usage, call.place(),
                "input 'render_mask' is taken by no version of this node: unlink it");
  if (!call.has("render_latent"))
    throw Error(ErrorKind::Usage, call.place(),
                "needs the latent of a rendered video at 'render_latent': link WanVideoEncode");
  RenderedVideo video{.net = control_input<wan::Uni3C>(call, "WanVideoUni3C_ControlnetLoader"),
                      .latent = latent_input(call, "render_latent").samples,
                      .strength = call.number("strength"),
                      .start = call.number("start_percent"),
                      .end = call.number("end_percent")};
  call.out(0, Value::of("UNI3C_EMBEDS", std::move(video)));
}

graph::Input part_of_run(const char* name, double usual) {
  return number(name,
                {.def = usual,
                 .min = 0.0,
                 .max = 1.0,
                 .step = 0.01,
                 .tooltip = "Where it begins or ceases to count: 0 the first step, 1 the last."});
}

graph::Input told(graph::Input input, const char* tooltip) {
  input.options["tooltip"] = tooltip;
  return input;
}

graph::Input load_device() {
  return told(load_device_input("main_device"), "Weights rest wherever there is room, either way.");
}

graph::Input device() {
  return told(device_input("device"), "What computes the network; its weights rest there too.");
}

/// A loader and its variant with "device" behind "load_device".
void add_loader(graph::Catalog& catalog, graph::NodeType loader) {
  auto placed = multigpu_variant(loader);
  constexpr int behind_load_device = 4;
  placed.inputs.insert(placed.inputs.begin() + behind_load_device, device());
  take_devices(placed);
  catalog.add(std::move(loader));
  catalog.add(std::move(placed));
}

graph::NodeType loader_of(App& app, const char* name, const char* display,
                          Found (*find)(const weights::Checkpoint&)) {
  return {
      .name = name,
      .display_name = display,
      .category = kCategory,
      .python_module = kModule,
      .inputs = {choice("model", model_choices(app, "controlnet"), {.extra = Json::object()})},
      .outputs = {{"WANVIDEOCONTROLNET", "controlnet"}},
      .run = [find,
              open = std::make_shared<OpenNetworks>()](Call& call) { load(call, *open, find); },
      .change_key = when_replaced(app, {{"controlnet", "model"}}),
  };
}

void add_loaders_of_controls(graph::Catalog& catalog, App& app) {
  const std::vector<std::string> precisions = {"fp32", "bf16", "fp16"};
  auto control =
      loader_of(app, "WanVideoControlnetLoader", "WanVideo Controlnet Loader", find_control_net);
  control.description =
      "Opens a ControlNet of Wan that steers by edges, depths or poses. Its weights are brought "
      "into place when a video is sampled.";
  control.inputs.push_back(choice("base_precision", precisions, {.def = "bf16"}));
  control.inputs.push_back(
      choice("quantization",
             {"disabled", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2", "fp8_e4m3fn_fast_no_ffn"},
             {.def = "disabled"}));
  control.inputs.push_back(load_device());
  add_loader(catalog, std::move(control));

  auto uni3c = loader_of(app, "WanVideoUni3C_ControlnetLoader", "WanVideo Uni3C Controlnet Loader",
                         find_uni3c);
  uni3c.description =
      "Opens a Uni3C network, which leads the camera of a Wan video of width 5120 by a rendered "
      "one. Its weights are brought into place when a video is sampled.";
  uni3c.inputs.push_back(choice("base_precision", precisions, {.def = "fp16"}));
  uni3c.inputs.push_back(
      choice("quantization", {"disabled", "fp8_e4m3fn", "fp8_e5m2"}, {.def = "disabled"}));
  uni3c.inputs.push_back(load_device());
  uni3c.inputs.push_back(choice(
      "attention_mode", {"sdpa", "sageattn"},
      {.def = "sdpa", .tooltip = "Both are the fastest exact attention that there is here."}));
  uni3c.inputs.push_back(optional(link("compile_args", "WANCOMPILEARGS")));
  add_loader(catalog, std::move(uni3c));
}

}  // namespace

void add_control_nodes(graph::Catalog& catalog, App& app) {
  add_loaders_of_controls(catalog, app);
  catalog.add({
      .name = "WanVideoControlnet",
      .display_name = "WanVideo Controlnet Apply",
      .category = kCategory,
      .description = "The same model steered by a video of edges, depths or poses, frame by frame.",
      .python_module = kModule,
      .inputs = {link("model", "WANVIDEOMODEL"), link("controlnet", "WANVIDEOCONTROLNET"),
                 link("control_images", "IMAGE"),
                 number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.0001}),
                 integer("control_stride",
                         {.def = 3,
                          .min = 1,
                          .max = 8,
                          .step = 1,
                          .tooltip = "So many layers of the model share one of the network's."}),
                 part_of_run("control_start_percent", 0.0),
                 part_of_run("control_end_percent", 1.0)},
      .outputs = {{"WANVIDEOMODEL", "model"}},
      .run = run_apply,
  });
  catalog.add({
      .name = "WanVideoUni3C_embeds",
      .display_name = "WanVideo Uni3C Embeds",
      .category = kCategory,
      .description = "How a rendered video leads the camera of the one that WanVideoSampler makes.",
      .python_module = kModule,
      .inputs = {link("controlnet", "WANVIDEOCONTROLNET"),
                 number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.001}),
                 part_of_run("start_percent", 0.0), part_of_run("end_percent", 1.0),
                 optional(link("render_latent", "LATENT")),
                 optional(link("render_mask", "MASK",
                               {.tooltip = "Not to be linked: no version of the node takes it.",
                                .extra = Json::object()}))},
      .outputs = {{"UNI3C_EMBEDS", "uni3c_embeds"}},
      .run = run_embeds,
  });
}

}  // namespace distorch::nodes::wan_wrapper
