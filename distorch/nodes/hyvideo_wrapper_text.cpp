// Prompts of the HunyuanVideoWrapper, and what carries their states to and from other nodes.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/hyvideo_wrapper_prompts.h"
#include "distorch/nodes/output_files.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/text_encode.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::text;
using graph::Value;
using sampling::Conditioning;

namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbeds = "HYVIDEMBEDS";
/// The folder of saved states, below the output folder.
constexpr const char* kSaved = "hyvid_embeds";
constexpr const char* kEmptyFile = "hunyuan_empty_prompt_embeds_dict.pt";

/// What the node says about the frame around its prompt; nothing: none.
std::optional<Frame> frame_of(const Call& call) {
  const auto name = call.text("prompt_template");
  if (name == "disabled") return std::nullopt;
  if (name != "custom") return named_frame(name);
  if (auto custom = optional_input<Frame>(call, "custom_prompt_template")) return custom;
  return named_frame("video");
}

/// The pooled vector of a prompt, by a CLIP of the node's own or the loader's; undefined: none.
Tensor pooled_of(Call& call, const HyText& text, const std::string& prompt) {
  if (call.node_type().find_input("clip_l") && call.has("clip_l")) {
    auto conditioning =
        encode_prompts(text_encoders_of(call, "clip_l"), {prompt, {}}, call.context<ModelCache>());
    return conditioning.front().pooled_output;
  }
  return text.clip ? pooled_words(call, *text.clip, prompt) : Tensor();
}

/// Both prompts of a node. `clip_text`: what CLIP reads in place of the prompt; "": that.
void encode(Call& call, const Words& words, const std::string& clip_text) {
  const auto& encoder = call.get<HyText>("text_encoders");
  const auto frame = frame_of(call);
  if (!frame && encoder.sees)
    throw Error(ErrorKind::Usage, call.place(),
                "needs a prompt_template for a LLaVA, which reads turns: choose another than "
                "'disabled'");
  const auto* around = frame ? &*frame : nullptr;
  Embeds embeds;
  embeds.states = encoded_words(call, encoder, around, words);
  embeds.pooled = pooled_of(call, encoder, clip_text.empty() ? words.text : clip_text);
  embeds.guidance = optional_input<Guidance>(call, "hyvid_cfg");
  if (embeds.guidance) {
    auto negative = words;
    negative.text = embeds.guidance->negative;
    // Before the words stands a black picture, among them none.
    if (words.picture_first)
      for (auto& picture : negative.pictures) picture = at::zeros_like(picture);
    else
      negative.pictures.clear();
    embeds.negative = encoded_words(call, encoder, around, negative);
    embeds.negative_pooled = pooled_of(call, encoder, negative.text);
    // The node does not hand this choice on.
    embeds.guidance->zero_star = true;
  }
  call.out(0, Value::of(kEmbeds, std::move(embeds)));
}

void run_encode(Call& call) { encode(call, {.text = call.text("prompt"), .pictures = {}}, ""); }

void run_encode_pictures(Call& call) {
  Words words{.text = call.text("prompt"),
              .pictures = {},
              .slices = call.text("image_token_selection_expr")};
  for (const char* name : {"image1", "image2"})
    if (call.has(name)) words.pictures.push_back(image_input(call, name));
  encode(call, words, call.text("clip_text_override"));
}

void run_encode_first(Call& call) {
  Words words{.text = call.text("prompt"),
              .pictures = {},
              .picture_first = true,
              .every = call.integer("image_embed_interleave")};
  if (call.has("image")) words.pictures.push_back(image_input(call, "image"));
  encode(call, words, "");
}

void run_template(Call& call) {
  call.out(0, Value::of("PROMPT_TEMPLATE",
                        Frame{call.text("custom_prompt_template"), call.integer("crop_start")}));
}

Guidance guidance_of(const Call& call) {
  return {.negative = "",
          .scale = call.number("cfg"),
          .start = call.number("start_percent"),
          .end = call.number("end_percent"),
          .together = call.boolean("batched_cfg"),
          .zero_star = call.boolean("use_cfg_zero_star")};
}

void run_guidance(Call& call) {
  auto guidance = guidance_of(call);
  guidance.negative = call.text("negative_prompt");
  call.out(0, Value::of("HYVID_CFG", std::move(guidance)));
}

const sampling::ConditioningItem& first_of(const Call& call, const char* input) {
  const auto& conditioning = call.get<Conditioning>(input);
  if (conditioning.empty() || !conditioning.front().cross_attn.defined())
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("the conditioning at '{}' holds no text", input));
  return conditioning.front();
}

void run_bridge(Call& call) {
  Embeds embeds;
  const auto& positive = first_of(call, "positive");
  embeds.states = positive.cross_attn;
  embeds.pooled = positive.pooled_output;
  if (call.has("negative")) {
    const auto& negative = first_of(call, "negative");
    embeds.negative = negative.cross_attn;
    embeds.negative_pooled = negative.pooled_output;
  }
  embeds.guidance = guidance_of(call);
  call.out(0, Value::of(kEmbeds, std::move(embeds)));
}

void run_adapter(Call& call) {
  const auto& embeds = call.get<Embeds>("hyvid_embeds");
  sampling::ConditioningItem item;
  item.cross_attn = embeds.states;
  item.pooled_output = embeds.pooled;
  if (embeds.mask.defined()) item.tensors["attention_mask"] = embeds.mask;
  if (embeds.pooled_mask.defined()) item.tensors["attention_mask_controlnet"] = embeds.pooled_mask;
  if (embeds.guidance) {
    item.numbers["guidance"] = embeds.guidance->scale;
    item.start_percent = embeds.guidance->start;
    item.end_percent = embeds.guidance->end;
  }
  call.out(0, Value::of("CONDITIONING", Conditioning{std::move(item)}));
}

/// Their names in files, and where they are kept.
constexpr std::array<std::pair<const char*, Tensor Embeds::*>, 6> kTensors = {{
    {"prompt_embeds", &Embeds::states},
    {"negative_prompt_embeds", &Embeds::negative},
    {"prompt_embeds_2", &Embeds::pooled},
    {"negative_prompt_embeds_2", &Embeds::negative_pooled},
    {"attention_mask", &Embeds::mask},
    {"attention_mask_2", &Embeds::pooled_mask},
}};

Embeds read_embeds(ModelCache& models, const fs::path& path) {
  weights::Checkpoint file(models.file(path));
  Embeds embeds;
  for (const auto& [name, place] : kTensors)
    if (const auto* stored = file.find(name))
      embeds.*place = weights::read_tensor(*stored).to(at::kFloat);
  if (!embeds.states.defined() || embeds.states.dim() != 3)
    throw Error(
        ErrorKind::Format, path.string(),
        "holds no states of a prompt: it has no tensor 'prompt_embeds' of three dimensions");
  auto scalar = [&](const char* name, double usual) {
    const auto* stored = file.find(name);
    return stored ? weights::read_tensor(*stored).to(at::kDouble).item<double>() : usual;
  };
  if (file.has("cfg"))
    embeds.guidance = Guidance{.negative = "",
                               .scale = scalar("cfg", 1),
                               .start = scalar("start_percent", 0),
                               .end = scalar("end_percent", 1),
                               .together = scalar("batched_cfg", 1) != 0,
                               .zero_star = scalar("use_cfg_zero_star", 1) != 0};
  return embeds;
}

void run_save(Call& call) {
  const auto& settings = call.context<Settings>();
  const auto& embeds = call.get<Embeds>("hyvid_embeds");
  if (call.context<streaming::Engine>().plan_only()) {
    call.out(0, Value::constant(Json("")));
    return;
  }
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, place] : kTensors)
    if (const auto& one = embeds.*place; one.defined())
      tensors[name] = one.to(at::kCPU, at::kFloat).contiguous();
  if (embeds.guidance) {
    auto scalar = [](double value) { return at::tensor(static_cast<float>(value)).squeeze(); };
    tensors["cfg"] = scalar(embeds.guidance->scale);
    tensors["start_percent"] = scalar(embeds.guidance->start);
    tensors["end_percent"] = scalar(embeds.guidance->end);
    tensors["batched_cfg"] = scalar(embeds.guidance->together ? 1 : 0);
    tensors["use_cfg_zero_star"] = scalar(embeds.guidance->zero_star ? 1 : 0);
  }
  std::vector<formats::TensorToWrite> list;
  for (const auto& [name, one] : tensors)
    list.push_back({name,
                    formats::DType::F32,
                    one.sizes().vec(),
                    {static_cast<const std::byte*>(one.const_data_ptr()), one.nbytes()}});
  formats::TensorFile::Metadata metadata;
  if (!settings.disable_metadata)
    for (auto& entry : workflow_texts(call.prompt(), call.extra_pnginfo()))
      metadata[entry.keyword] = entry.value;
  const auto place = output_place(call.text("filename_prefix"), settings.output_folder);
  const auto path = place.folder / numbered(place.name, next_number(place), ".safetensors");
  formats::write_safetensors(path, list, metadata);
  call.out(0, Value::constant(Json(path.string())));
}

std::vector<std::string> saved_names(const Settings& settings) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(settings.output_folder / kSaved, error), end;
       !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::ranges::sort(names);
  return names;
}

fs::path saved_path(const Call& call, const Settings& settings) {
  return settings.output_folder / kSaved / fs::path(call.text("embeds")).filename();
}

void run_load(Call& call) {
  const auto path = saved_path(call, call.context<Settings>());
  if (!fs::is_regular_file(path))
    throw Error(ErrorKind::MissingFile, path.string(),
                "is not there: HyVideoTextEmbedsSave writes such files into this folder");
  call.out(0, Value::of(kEmbeds, read_embeds(call.context<ModelCache>(), path)));
}

void run_empty(Call& call) {
  const auto& folders = call.context<ModelFolders>();
  for (const auto& place : folders.folders("LLM"))
    if (fs::is_regular_file(place / kEmptyFile)) {
      call.out(0, Value::of(kEmbeds, read_embeds(call.context<ModelCache>(), place / kEmptyFile)));
      return;
    }
  throw Error(
      ErrorKind::MissingFile, fmt::format("models/LLM/{}", kEmptyFile),
      fmt::format("is not there: the pack ComfyUI-HunyuanVideoWrapper brings this file with "
                  "the states of an empty prompt, copy it into a folder of models ({})",
                  folders.searched("LLM")));
}

graph::Input prompt() { return text("prompt", {.def = "", .multiline = true}); }

graph::NodeType encode_node(const char* name, const char* title, std::vector<graph::Input> inputs,
                            void (*run)(Call&)) {
  inputs.insert(inputs.begin(), {link("text_encoders", "HYVIDTEXTENCODER"), prompt()});
  auto node = setting(name, title, std::move(inputs), {kEmbeds, "hyvid_embeds"}, run);
  return node;
}

graph::Input offload() {
  return optional(boolean("force_offload", {.def = true,
                                            .tooltip = "Weights make room here when something else "
                                                       "needs it, either way."}));
}

/// What both nodes have that choose a frame freely.
std::vector<graph::Input> frame_inputs() {
  const auto video = named_frame("video");
  const Json usual = {{"template", video.text}, {"crop_start", video.crop}};
  return {offload(),
          optional(choice("prompt_template", {"video", "image", "custom", "disabled"},
                          {.def = "video",
                           .tooltip = "What stands around the prompt for the language model."})),
          optional(link("custom_prompt_template", "PROMPT_TEMPLATE",
                        {.extra = {{"default", usual}, {"multiline", true}}})),
          optional(link("clip_l", "CLIP", {.extra = Json::object()}))};
}

void add_last(std::vector<graph::Input>& inputs) {
  inputs.push_back(optional(link("hyvid_cfg", "HYVID_CFG")));
  inputs.push_back(optional(link("model_to_offload", "HYVIDEOMODEL", {.extra = Json::object()})));
}

void add_encode(graph::Catalog& catalog) {
  auto inputs = frame_inputs();
  add_last(inputs);
  auto plain =
      encode_node("HyVideoTextEncode", "HunyuanVideo TextEncode", std::move(inputs), run_encode);
  plain.description = "A prompt for HyVideoSampler.";
  catalog.add(std::move(plain));

  const Json none = {{"default", nullptr}};
  inputs = frame_inputs();
  inputs.insert(inputs.begin(),
                text("image_token_selection_expr", {.def = "::4", .multiline = false}));
  inputs.push_back(optional(link("image1", "IMAGE", {.extra = none})));
  inputs.push_back(optional(link("image2", "IMAGE", {.extra = none})));
  inputs.push_back(optional(text("clip_text_override", {.def = "", .multiline = true})));
  add_last(inputs);
  auto pictures = encode_node("HyVideoTextImageEncode", "HunyuanVideo TextImageEncode (IP2V)",
                              std::move(inputs), run_encode_pictures);
  pictures.description =
      "A prompt with pictures in it, each where \"<image>\" stands, for a LLaVA. The selection "
      "says "
      "which of a picture's 576 places are kept.";
  catalog.add(std::move(pictures));

  inputs = {offload(),
            optional(choice("prompt_template", {"I2V_video", "I2V_image", "disabled"},
                            {.def = "I2V_video"})),
            optional(link("clip_l", "CLIP", {.extra = Json::object()})),
            optional(link("image", "IMAGE", {.extra = none})),
            optional(link("hyvid_cfg", "HYVID_CFG")),
            optional(integer("image_embed_interleave", {.def = 2})),
            optional(link("model_to_offload", "HYVIDEOMODEL", {.extra = Json::object()}))};
  auto first =
      encode_node("HyVideoI2VEncode", "HyVideo I2V Encode", std::move(inputs), run_encode_first);
  first.description = "A prompt behind the picture that a video begins with, for a LLaVA.";
  catalog.add(std::move(first));
}

std::vector<graph::Input> guidance_inputs(bool zero_star, double cfg) {
  auto part = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
  };
  return {number("cfg", {.def = cfg, .min = 0.0, .max = 100.0, .step = 0.01}),
          part("start_percent", 0.0), part("end_percent", 1.0),
          boolean("batched_cfg", {.def = false}), boolean("use_cfg_zero_star", {.def = zero_star})};
}

void add_guidance(graph::Catalog& catalog) {
  auto inputs = guidance_inputs(false, 2.0);
  inputs.insert(
      inputs.begin(),
      text("negative_prompt",
           {.def = "Aerial view, aerial view, overexposed, low quality, deformation, a poor "
                   "composition, bad hands, bad teeth, bad eyes, bad limbs, distortion",
            .multiline = true}));
  auto cfg = setting("HyVideoCFG", "HunyuanVideo CFG", std::move(inputs),
                     {"HYVID_CFG", "hyvid_cfg"}, run_guidance);
  cfg.description = "A negative prompt, which makes each step compute both.";
  catalog.add(std::move(cfg));
  inputs = guidance_inputs(true, 1.0);
  inputs.insert(inputs.begin(), link("positive", "CONDITIONING"));
  inputs.push_back(optional(link("negative", "CONDITIONING")));
  auto bridge = setting("HyVideoTextEmbedBridge", "HyVideo TextEmbed Bridge", std::move(inputs),
                        {kEmbeds, "hyvid_embeds"}, run_bridge);
  bridge.description = "What native text nodes made, for HyVideoSampler.";
  catalog.add(std::move(bridge));
}

void add_files(graph::Catalog& catalog, App& app) {
  catalog.add({
      .name = "HyVideoTextEmbedsSave",
      .display_name = "HunyuanVideo TextEmbeds Save",
      .category = kCategory,
      .python_module = kModule,
      .inputs = {link("hyvid_embeds", kEmbeds),
                 text("filename_prefix", {.def = "hyvid_embeds/hyvid_embed"})},
      .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
      .outputs = {{"STRING", "output_path"}},
      .run = run_save,
  });
  auto load =
      setting("HyVideoTextEmbedsLoad", "HunyuanVideo TextEmbeds Load",
              {choice("embeds", graph::Choices([&app] { return saved_names(app.settings); }),
                      {.extra = Json::object()})},
              {kEmbeds, "hyvid_embeds"}, run_load);
  load.change_key = [&app](const Call& call) -> std::optional<std::string> {
    const auto path = saved_path(call, app.settings);
    return fs::is_regular_file(path) ? ModelCache::identity(path) : "none";
  };
  catalog.add(std::move(load));
  catalog.add(setting("HyVideoEmptyTextEmbeds", "HunyuanVideo Empty Text Embeds", {},
                      {kEmbeds, "hyvid_embeds"}, run_empty));
}

}  // namespace

void add_text_nodes(graph::Catalog& catalog, App& app) {
  add_encode(catalog);
  add_guidance(catalog);
  add_files(catalog, app);
  const auto video = named_frame("video");
  catalog.add(setting("HyVideoCustomPromptTemplate", "HunyuanVideo Custom Prompt Template",
                      {text("custom_prompt_template", {.def = video.text, .multiline = true}),
                       integer("crop_start", {.def = video.crop})},
                      {"PROMPT_TEMPLATE", "hyvid_prompt_template"}, run_template));
  catalog.add({
      .name = "HunyuanVideoEmbeddingsAdapter",
      .display_name = "HunyuanVideoEmbeddingsAdapter",
      .category = "multigpu",
      .description = "What HyVideoTextEncode and its like made, for native nodes.",
      .python_module = kMultiGpuModule,
      .inputs = {link("hyvid_embeds", kEmbeds)},
      .outputs = {"CONDITIONING"},
      .run = run_adapter,
  });
}

}  // namespace distorch::nodes::hyvideo
