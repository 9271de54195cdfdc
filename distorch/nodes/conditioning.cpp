#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/text_encode.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Conditioning;
using sampling::ConditioningItem;

namespace {

void out(Call& call, std::size_t slot, Conditioning conditioning) {
  call.out(slot, Value::of("CONDITIONING", std::move(conditioning)));
}

/// Every item of the input "conditioning" with something changed.
void change(Call& call, const std::function<void(ConditioningItem&)>& edit) {
  auto conditioning = call.get<Conditioning>("conditioning");
  for (auto& item : conditioning) edit(item);
  out(call, 0, std::move(conditioning));
}

/// The first item of "conditioning_from", which is all that averaging and joining take.
const ConditioningItem& first_of(Call& call) {
  const auto& from = call.get<Conditioning>("conditioning_from");
  if (from.empty()) throw Error(ErrorKind::Usage, call.place(), "conditioning_from is empty");
  if (from.size() > 1)
    log::warn("{}: conditioning_from holds {} prompts, only the first is taken", call.place(),
              from.size());
  return from.front();
}

void run_text_encode(Call& call) {
  out(call, 0,
      encode_prompts(text_encoders_of(call, "clip"), {call.text("text"), {}},
                     call.context<ModelCache>()));
}

void run_last_layer(Call& call) {
  auto clip = call.get<Clip>("clip");
  clip.layer = static_cast<int>(call.integer("stop_at_clip_layer"));
  call.out(0, Value::of("CLIP", std::move(clip)));
}

void run_combine(Call& call) {
  auto all = call.get<Conditioning>("conditioning_1");
  const auto& more = call.get<Conditioning>("conditioning_2");
  all.insert(all.end(), more.begin(), more.end());
  out(call, 0, std::move(all));
}

void run_concat(Call& call) {
  auto to = call.get<Conditioning>("conditioning_to");
  const auto& from = first_of(call);
  for (auto& item : to) item.cross_attn = at::cat({item.cross_attn, from.cross_attn}, 1);
  out(call, 0, std::move(to));
}

void run_average(Call& call) {
  auto to = call.get<Conditioning>("conditioning_to");
  const auto& from = first_of(call);
  auto share = call.number("conditioning_to_strength");
  for (auto& item : to) {
    auto tokens = item.cross_attn.size(1);
    auto other = from.cross_attn.narrow(1, 0, std::min(tokens, from.cross_attn.size(1)));
    if (other.size(1) < tokens)
      other = at::constant_pad_nd(other, {0, 0, 0, tokens - other.size(1)});
    item.cross_attn = item.cross_attn * share + other * (1.0 - share);
    if (!from.pooled_output.defined()) continue;
    item.pooled_output = item.pooled_output.defined()
                             ? item.pooled_output * share + from.pooled_output * (1.0 - share)
                             : from.pooled_output;
  }
  out(call, 0, std::move(to));
}

void run_area(Call& call) {
  auto cells = [&](const char* name) { return static_cast<double>(call.integer(name) / 8); };
  sampling::Area area{{cells("height"), cells("width")}, {cells("y"), cells("x")}, false};
  change(call, [&](ConditioningItem& item) {
    item.area = area;
    item.strength = call.number("strength");
    item.set_area_to_bounds = false;
  });
}

void run_area_percentage(Call& call) {
  sampling::Area area{
      {call.number("height"), call.number("width")}, {call.number("y"), call.number("x")}, true};
  change(call, [&](ConditioningItem& item) {
    item.area = area;
    item.strength = call.number("strength");
    item.set_area_to_bounds = false;
  });
}

void run_area_strength(Call& call) {
  change(call, [&](ConditioningItem& item) { item.strength = call.number("strength"); });
}

void run_mask(Call& call) {
  auto mask = call.get<Tensor>("mask");
  if (mask.dim() < 3) mask = mask.unsqueeze(0);
  change(call, [&](ConditioningItem& item) {
    item.mask = mask;
    item.mask_strength = call.number("strength");
    item.set_area_to_bounds = call.text("set_cond_area") != "default";
  });
}

void run_timestep_range(Call& call) {
  change(call, [&](ConditioningItem& item) {
    item.start_percent = call.number("start");
    item.end_percent = call.number("end");
  });
}

void run_zero_out(Call& call) {
  change(call, [](ConditioningItem& item) {
    item.cross_attn = at::zeros_like(item.cross_attn);
    if (item.pooled_output.defined()) item.pooled_output = at::zeros_like(item.pooled_output);
  });
}

graph::Input strength() {
  return number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.01});
}

void add_area_nodes(graph::Catalog& catalog) {
  auto side = [](const char* name) {
    return integer(name, {.def = 64, .min = 64, .max = 16384, .step = 8});
  };
  auto place = [](const char* name) {
    return integer(name, {.def = 0, .min = 0, .max = 16384, .step = 8});
  };
  auto part = [](const char* name, graph::Json usual) {
    return number(name, {.def = usual, .min = 0, .max = 1.0, .step = 0.01});
  };
  auto conditioning = link("conditioning", "CONDITIONING");
  catalog.add({
      .name = "ConditioningSetArea",
      .display_name = "Conditioning (Set Area)",
      .category = "conditioning",
      .inputs = {conditioning, side("width"), side("height"), place("x"), place("y"), strength()},
      .outputs = {"CONDITIONING"},
      .run = run_area,
  });
  catalog.add({
      .name = "ConditioningSetAreaPercentage",
      .display_name = "Conditioning (Set Area with Percentage)",
      .category = "conditioning",
      .inputs = {conditioning, part("width", 1.0), part("height", 1.0), part("x", 0), part("y", 0),
                 strength()},
      .outputs = {"CONDITIONING"},
      .run = run_area_percentage,
  });
  catalog.add({
      .name = "ConditioningSetAreaStrength",
      .category = "conditioning",
      .inputs = {conditioning, strength()},
      .outputs = {"CONDITIONING"},
      .run = run_area_strength,
  });
  catalog.add({
      .name = "ConditioningSetMask",
      .display_name = "Conditioning (Set Mask)",
      .category = "conditioning",
      .inputs = {conditioning, link("mask", "MASK"), strength(),
                 choice("set_cond_area", {"default", "mask bounds"})},
      .outputs = {"CONDITIONING"},
      .run = run_mask,
  });
}

}  // namespace

void add_conditioning_nodes(graph::Catalog& catalog) {
  auto conditioning = link("conditioning", "CONDITIONING");
  auto to = link("conditioning_to", "CONDITIONING"),
       from = link("conditioning_from", "CONDITIONING");
  catalog.add({
      .name = "CLIPTextEncode",
      .display_name = "CLIP Text Encode (Prompt)",
      .category = "conditioning",
      .description = "Turns a prompt into the conditioning that tells a sampler what to make.",
      .inputs =
          {graph::text(
               "text",
               {.multiline = true,
                .dynamic_prompts = true,
                .tooltip =
                    "The prompt. (word:1.2) weighs a word, embedding:name puts in an embedding."}),
           link("clip", "CLIP", {.tooltip = "The text encoder that reads the prompt."})},
      .outputs = {{"CONDITIONING", "", "The encoded prompt, for a sampler."}},
      .run = run_text_encode,
  });
  catalog.add({
      .name = "CLIPSetLastLayer",
      .display_name = "CLIP Set Last Layer",
      .category = "conditioning",
      .inputs = {link("clip", "CLIP"),
                 integer("stop_at_clip_layer", {.def = -1, .min = -24, .max = -1, .step = 1})},
      .outputs = {"CLIP"},
      .run = run_last_layer,
  });
  catalog.add({
      .name = "ConditioningCombine",
      .display_name = "Conditioning (Combine)",
      .category = "conditioning",
      .inputs = {link("conditioning_1", "CONDITIONING"), link("conditioning_2", "CONDITIONING")},
      .outputs = {"CONDITIONING"},
      .run = run_combine,
  });
  catalog.add({
      .name = "ConditioningConcat",
      .display_name = "Conditioning (Concat)",
      .category = "conditioning",
      .inputs = {to, from},
      .outputs = {"CONDITIONING"},
      .run = run_concat,
  });
  catalog.add({
      .name = "ConditioningAverage",
      .category = "conditioning",
      .inputs = {to, from,
                 number("conditioning_to_strength",
                        {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01})},
      .outputs = {"CONDITIONING"},
      .run = run_average,
  });
  add_area_nodes(catalog);
  catalog.add({
      .name = "ConditioningZeroOut",
      .category = "advanced/conditioning",
      .inputs = {conditioning},
      .outputs = {"CONDITIONING"},
      .run = run_zero_out,
  });
  auto percent = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.001});
  };
  catalog.add({
      .name = "ConditioningSetTimestepRange",
      .category = "advanced/conditioning",
      .inputs = {conditioning, percent("start", 0.0), percent("end", 1.0)},
      .outputs = {"CONDITIONING"},
      .run = run_timestep_range,
  });
}

}  // namespace distorch::nodes
