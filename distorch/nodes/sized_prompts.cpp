// Prompts that speak of a picture's sizes, or to each encoder of its own.
#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/text_encode.h"

namespace distorch::nodes {

using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::text;
using graph::Value;

namespace {

/// Encodes and puts the node's numbers on every item: pairs of the node's input and the name that
/// the model looks for.
void encode(Call& call, const Prompts& prompts,
            const std::vector<std::pair<const char*, const char*>>& numbers) {
  auto conditioning =
      encode_prompts(text_encoders_of(call, "clip"), prompts, call.context<ModelCache>());
  for (auto& item : conditioning)
    for (const auto& [input, name] : numbers) item.numbers[name] = call.number(input);
  call.out(0, Value::of("CONDITIONING", std::move(conditioning)));
}

void run_base(Call& call) {
  encode(call, {call.text("text_g"), {{"clip_l", call.text("text_l")}}},
         {{"width", "width"},
          {"height", "height"},
          {"crop_w", "crop_w"},
          {"crop_h", "crop_h"},
          {"target_width", "target_width"},
          {"target_height", "target_height"}});
}

void run_refiner(Call& call) {
  encode(call, {call.text("text"), {}},
         {{"width", "width"}, {"height", "height"}, {"ascore", "aesthetic_score"}});
}

/// An empty text with `empty_padding` "none" says nothing at all.
models::Prompt padded(const Call& call, const char* input) {
  models::Prompt prompt(call.text(input));
  prompt.silent = prompt.text.empty() && call.text("empty_padding") == "none";
  return prompt;
}

void run_sd3(Call& call) {
  encode(call,
         {padded(call, "clip_g"),
          {{"clip_l", padded(call, "clip_l")}, {"t5xxl", padded(call, "t5xxl")}}},
         {});
}

}  // namespace

void add_sized_prompt_nodes(graph::Catalog& catalog) {
  auto size = [](const char* name, int usual) {
    return integer(name, {.def = usual, .min = 0, .max = 16384});
  };
  auto prompt = [](const char* name) {
    return text(name, {.multiline = true, .dynamic_prompts = true});
  };
  catalog.add({
      .name = "CLIPTextEncodeSDXL",
      .category = "advanced/conditioning",
      .python_module = "comfy_extras.nodes_clip_sdxl",
      .inputs = {link("clip", "CLIP"), size("width", 1024), size("height", 1024), size("crop_w", 0),
                 size("crop_h", 0), size("target_width", 1024), size("target_height", 1024),
                 prompt("text_g"), prompt("text_l")},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_base,
  });
  catalog.add({
      .name = "CLIPTextEncodeSDXLRefiner",
      .category = "advanced/conditioning",
      .python_module = "comfy_extras.nodes_clip_sdxl",
      .inputs = {number("ascore", {.def = 6.0, .min = 0.0, .max = 1000.0, .step = 0.01}),
                 size("width", 1024), size("height", 1024), prompt("text"), link("clip", "CLIP")},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_refiner,
  });
  catalog.add({
      .name = "CLIPTextEncodeSD3",
      .category = "advanced/conditioning",
      .python_module = "comfy_extras.nodes_sd3",
      .inputs = {link("clip", "CLIP"), prompt("clip_l"), prompt("clip_g"), prompt("t5xxl"),
                 graph::choice("empty_padding", {"none", "empty_prompt"})},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_sd3,
  });
}

}  // namespace distorch::nodes
