// Prompts of the WanVideoWrapper.
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/cache_folder.h"
#include "distorch/base/error.h"
#include "distorch/base/hash.h"
#include "distorch/base/log.h"
#include "distorch/formats/safetensors.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/text_encode.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_models.h"
#include "distorch/nodes/wan_wrapper_prompts.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::link;
using graph::optional;
using graph::text;
using graph::Value;
using sampling::Conditioning;

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostTokens = 512;

/// What the tokenizer reads as it stands: parentheses are no weights here.
std::string as_plain_text(const std::string& prompt) {
  std::string result;
  for (char c : prompt) {
    if (c == '(' || c == ')') result += '\\';
    result += c;
  }
  return result;
}

/// The states of a prompt's own tokens [n, width].
Tensor own_states(const Tensor& states) {
  auto rows = states.select(0, 0);
  auto count = (rows.abs().amax(-1) > 0).sum().item<std::int64_t>();
  if (count > kMostTokens)
    log::warn("the prompt has {} tokens, of which the model sees {}", count, kMostTokens);
  if (count == 0) count = rows.size(0);  // of a run that is only planned
  return rows.narrow(0, 0, std::min(count, kMostTokens)).contiguous();
}

/// Where the states of a prompt are kept between runs: one file for each prompt and encoder.
class DiskCache {
 public:
  explicit DiskCache(bool used) : folder_(cache_folder() / "text_embeds"), used_(used) {}

  /// Undefined where there is none. Without an encoder those of any count.
  Tensor find(const std::string& prompt, const std::string& encoder) const {
    std::error_code none;
    if (!used_ || !fs::is_directory(folder_, none)) return {};
    auto exact = file_of(prompt, encoder);
    if (!encoder.empty()) return fs::exists(exact) ? read(exact) : Tensor();
    for (const auto& entry : fs::directory_iterator(folder_, none))
      if (entry.path().filename().string().starts_with(hex(digest(prompt))))
        return read(entry.path());
    return {};
  }

  void keep(const std::string& prompt, const std::string& encoder, const Tensor& states) const {
    if (!used_) return;
    fs::create_directories(folder_);
    auto whole = states.contiguous();
    formats::write_safetensors(
        file_of(prompt, encoder),
        {{"states",
          formats::DType::F32,
          whole.sizes().vec(),
          {static_cast<const std::byte*>(whole.const_data_ptr()), whole.nbytes()}}});
  }

 private:
  fs::path file_of(const std::string& prompt, const std::string& encoder) const {
    return folder_ / fmt::format("{}-{}.safetensors", hex(digest(prompt)), hex(digest(encoder)));
  }

  static Tensor read(const fs::path& path) {
    try {
      weights::Checkpoint file(
          std::make_shared<const formats::TensorFile>(formats::open_tensor_file(path)));
      const auto* stored = file.find("states");
      if (stored && stored->shape.size() == 2) return weights::read_tensor(*stored).to(at::kFloat);
    } catch (const Error& problem) {
      log::warn("states of a prompt that were kept are left out: {}", problem.what());
    }
    return {};
  }

  fs::path folder_;
  bool used_;
};

/// What encodes the prompts of one node.
class Encoder {
 public:
  Encoder(Call& call, std::optional<WanText> encoder)
      : call_(call),
        models_(call.context<ModelCache>()),
        encoder_(std::move(encoder)),
        cache_(call.boolean("use_disk_cache") && !models_.engine().plan_only()) {
    if (!encoder_ || !call.node_type().find_input("device")) return;
    const auto device = call.text("device");
    if (device != "gpu" && device != "default")
      encoder_->clip = open_text(encoder_->file, {.compute = device}, models_);
  }

  Tensor operator()(const std::string& prompt) {
    const auto identity = encoder_ ? ModelCache::identity(encoder_->file) : std::string();
    if (auto kept = cache_.find(prompt, identity); kept.defined()) return kept;
    if (!encoder_)
      throw Error(ErrorKind::Usage, call_.place(),
                  "no text encoder is linked to 't5', and no states of this prompt were kept: link "
                  "LoadWanVideoT5TextEncoder, or set use_disk_cache where they were");
    auto conditioning = encode_prompts(
        encoder_->clip, {.all = as_plain_text(cleaned_prompt(prompt)), .by_encoder = {}}, models_);
    auto states = own_states(conditioning.front().cross_attn);
    cache_.keep(prompt, identity, states);
    return states;
  }

 private:
  Call& call_;
  ModelCache& models_;
  std::optional<WanText> encoder_;
  DiskCache cache_;
};

TextEmbeds encoded(Encoder& encoder, const std::string& positive, const std::string& negative) {
  TextEmbeds embeds;
  for (const auto& one : split_prompts(positive)) {
    const auto weighted = without_weights(one);
    auto states = encoder(weighted.text);
    for (double weight : weighted.weights) states = states * weight;
    embeds.prompts.push_back(states);
  }
  embeds.negative = encoder(negative);
  return embeds;
}

void run_encode(Call& call) {
  Encoder encoder(call, optional_input<WanText>(call, "t5"));
  call.out(0, Value::of("WANVIDEOTEXTEMBEDS", encoded(encoder, call.text("positive_prompt"),
                                                      call.text("negative_prompt"))));
}

void run_encode_single(Call& call) {
  Encoder encoder(call, optional_input<WanText>(call, "t5"));
  call.out(0,
           Value::of("WANVIDEOTEXTEMBEDS", TextEmbeds{{encoder(call.text("prompt"))}, Tensor()}));
}

void run_encode_cached(Call& call) {
  auto& models = call.context<ModelCache>();
  const auto placed = call.node_type().find_input("load_device") != nullptr;
  WanText text{.file = call.context<ModelFolders>().get("text_encoders", call.text("model_name")),
               .placement = {.compute = placed ? call.text("load_device") : ""}};
  text.clip = open_text(text.file, text.placement, models);
  Encoder encoder(call, text);
  auto embeds = encoded(encoder, call.text("positive_prompt"), call.text("negative_prompt"));
  TextEmbeds negative{{embeds.negative}, Tensor()};
  call.out(0, Value::of("WANVIDEOTEXTEMBEDS", std::move(embeds)));
  call.out(1, Value::of("WANVIDEOTEXTEMBEDS", std::move(negative)));
  call.out(2, call.in("positive_prompt"));
}

Tensor first_states(const Call& call, const char* input) {
  const auto& conditioning = call.get<Conditioning>(input);
  if (conditioning.empty() || !conditioning.front().cross_attn.defined())
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("the conditioning at '{}' holds no text", input));
  return conditioning.front().cross_attn.select(0, 0);
}

void run_bridge(Call& call) {
  TextEmbeds embeds{{first_states(call, "positive")}, Tensor()};
  if (call.has("negative")) embeds.negative = first_states(call, "negative");
  call.out(0, Value::of("WANVIDEOTEXTEMBEDS", std::move(embeds)));
}

graph::Input prompt(const char* name) { return text(name, {.def = "", .multiline = true}); }

graph::NodeType encode_node(const char* name, const char* title,
                            std::vector<graph::Input> prompts) {
  graph::NodeType node{
      .name = name,
      .display_name = title,
      .category = kCategory,
      .description =
          "Prompts for WanVideoSampler. Several, with | between them, follow each other "
          "over the video; (text:1.2) makes a whole prompt count more.",
      .python_module = kModule,
      .inputs = std::move(prompts),
      .outputs = {{"WANVIDEOTEXTEMBEDS", "text_embeds"}},
  };
  auto add = [&](graph::Input input) { node.inputs.push_back(optional(std::move(input))); };
  add(link("t5", "WANTEXTENCODER"));
  add(boolean("force_offload", {.def = true}));
  add(link("model_to_offload", "WANVIDEOMODEL", {.extra = graph::Json::object()}));
  add(boolean("use_disk_cache", {.def = false}));
  add(choice("device", {"gpu", "cpu"}, {.def = "gpu"}));
  return node;
}

/// The variant whose encoder brings its device along. Older ones named it themselves, behind.
void add_with_variant(graph::Catalog& catalog, graph::NodeType node) {
  auto placed = multigpu_variant(node);
  placed.inputs.pop_back();
  auto before = std::ranges::find_if(
      placed.inputs, [](const graph::Input& input) { return input.name == "force_offload"; });
  placed.inputs.insert(before, optional(link("load_device", "MULTIGPUDEVICE")));
  auto devices = graph::Choices([list = device_choices()] {
    graph::Json names = list.read();
    names.push_back("default");
    return names;
  });
  placed.inputs.push_back(optional(choice("device", devices, {.def = "default"})));
  placed.checks.push_back(any_device({"device"}));
  catalog.add(std::move(node));
  catalog.add(std::move(placed));
}

void add_cached(graph::Catalog& catalog, App& app) {
  graph::NodeType node{
      .name = "WanVideoTextEncodeCached",
      .display_name = "WanVideo TextEncode Cached",
      .category = kCategory,
      .description =
          "Prompts whose states are kept between runs; the text encoder is only opened "
          "for new ones.",
      .python_module = kModule,
      .inputs = {choice("model_name", model_choices(app, "text_encoders")),
                 choice("precision", {"fp32", "bf16"}, {.def = "bf16"}), prompt("positive_prompt"),
                 prompt("negative_prompt"),
                 choice("quantization", {"disabled", "fp8_e4m3fn"}, {.def = "disabled"}),
                 boolean("use_disk_cache", {.def = true}),
                 choice("device", {"gpu", "cpu"}, {.def = "gpu"}),
                 optional(link("extender_args", "WANVIDEOPROMPTEXTENDER_ARGS",
                               {.extra = graph::Json::object()}))},
      .outputs = {{"WANVIDEOTEXTEMBEDS", "text_embeds"},
                  {"WANVIDEOTEXTEMBEDS", "negative_text_embeds"},
                  {"STRING", "positive_prompt"}},
      .run = run_encode_cached,
      .change_key = when_replaced(app, {{"text_encoders", "model_name"}}),
  };
  auto placed = multigpu_variant(node);
  placed.inputs[placed.inputs.size() - 2] = device_input("load_device");
  placed.checks.push_back(any_device({"load_device"}));
  catalog.add(std::move(node));
  catalog.add(std::move(placed));
}

}  // namespace

void add_text_nodes(graph::Catalog& catalog, App& app) {
  auto encode = encode_node("WanVideoTextEncode", "WanVideo TextEncode",
                            {prompt("positive_prompt"), prompt("negative_prompt")});
  encode.run = run_encode;
  add_with_variant(catalog, std::move(encode));
  auto single =
      encode_node("WanVideoTextEncodeSingle", "WanVideo TextEncodeSingle", {prompt("prompt")});
  single.run = run_encode_single;
  add_with_variant(catalog, std::move(single));
  add_cached(catalog, app);
  catalog.add({
      .name = "WanVideoTextEmbedBridge",
      .display_name = "WanVideo TextEmbed Bridge",
      .category = kCategory,
      .description = "What CLIPTextEncode made, for WanVideoSampler.",
      .python_module = kModule,
      .inputs = {link("positive", "CONDITIONING"), optional(link("negative", "CONDITIONING"))},
      .outputs = {{"WANVIDEOTEXTEMBEDS", "text_embeds"}},
      .run = run_bridge,
  });
}

}  // namespace distorch::nodes::wan_wrapper
