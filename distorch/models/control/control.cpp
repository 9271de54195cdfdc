#include "distorch/models/control/control.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/adapter.h"
#include "distorch/models/control/borrowing.h"
#include "distorch/models/control/control_net.h"
#include "distorch/models/flux/control_net.h"
#include "distorch/models/qwen_image/control_net.h"
#include "distorch/models/qwen_image/fun_control_net.h"
#include "distorch/models/sd3/control_net.h"
#include "distorch/models/sd3/large_control_net.h"

namespace distorch::models::control {

using weights::Checkpoint;

namespace {

bool is_control_net(const Checkpoint& part) {
  return part.has("zero_convs.0.0.weight") && part.has("input_hint_block.0.weight");
}

bool is_adapter(const Checkpoint& part) {
  return part.has("body.0.in_conv.weight") ||
         (part.has("conv_in.weight") && part.has("body.0.block1.weight"));
}

// Fused projections of the union's layers are called "in_proj_weight" in files.
Checkpoint with_plain_projections(Checkpoint part) {
  for (int i = 0; i < part.count("transformer_layes."); ++i)
    for (const char* end : {"weight", "bias"}) {
      auto base = fmt::format("transformer_layes.{}.attn.in_proj", i);
      part.rename(base + "_" + end, base + "." + end);
    }
  return part;
}

}  // namespace

std::string name_of(const Place& place) {
  switch (place.at) {
    case Place::At::Input: return fmt::format("control_input.{}", place.block);
    case Place::At::Skip: return fmt::format("control_output.{}", place.block);
    case Place::At::Block: return fmt::format("control_block.{}", place.block);
    default: return "control_middle";
  }
}

Checkpoint control_part(const Checkpoint& file) {
  for (const std::string prefix : {"control_model.", ""}) {
    auto part = with_original_names(prefix.empty() ? file : file.part(prefix));
    if (is_control_net(part)) return with_plain_projections(std::move(part));
  }
  if (qwen_image::is_control_net(file)) return file;
  if (auto net = flux::control_tensors(file); !net.empty()) return net;
  if (auto net = sd3::with_original_control_names(file); !net.empty()) return net;
  auto adapter = with_original_adapter_names(file);
  return is_adapter(adapter) ? adapter : Checkpoint();
}

Stored stored_as(const Checkpoint& file) {
  if (file.has("lora_controlnet")) return Stored::LowRank;
  return file.has("difference") ? Stored::Difference : Stored::Whole;
}

Merged control_over(const Checkpoint& file, const Checkpoint& unet) {
  if (is_borrowing(file)) return borrowed_from(file, unet);
  Merged merged;
  bool low_rank = stored_as(file) == Stored::LowRank;
  auto below = [](const std::string& name, std::string_view end) {
    return name.substr(0, name.size() - end.size());
  };
  auto own = low_rank ? file : file.part("control_model.");
  for (const auto& [name, stored] : own.tensors()) {
    if (low_rank && name.ends_with(".up"))
      merged.changes.add(below(name, ".up") + ".lora_up.weight", stored);
    else if (low_rank && name.ends_with(".down"))
      merged.changes.add(below(name, ".down") + ".lora_down.weight", stored);
    else if (!low_rank && unet.has(name))
      merged.changes.add(name.ends_with(".bias") ? below(name, ".bias") + ".diff_b"
                                                 : below(name, ".weight") + ".diff",
                         stored);
    else if (name.ends_with(".weight") || name.ends_with(".bias"))
      merged.part.add(name, stored);
  }
  for (const auto& [name, stored] : unet.tensors()) {
    bool wanted = false;
    for (const char* half : {"time_embed.", "label_emb.", "input_blocks.", "middle_block."})
      wanted = wanted || name.starts_with(half);
    if (!wanted || merged.part.has(name)) continue;
    merged.part.add(name, stored);
    merged.from_unet.push_back(name);
  }
  return merged;
}

std::unique_ptr<ControlNetwork> make_control(const Checkpoint& part) {
  if (is_control_net(part)) return std::make_unique<ControlNet>(control_net_config(part));
  if (is_adapter(part)) return std::make_unique<Adapter>(adapter_config(part));
  if (qwen_image::is_control_net(part)) return qwen_image::make_control_net(part);
  if (!flux::control_tensors(part).empty()) return flux::make_control_net(part);
  if (qwen_image::is_fun_control_net(part)) return qwen_image::make_fun_control_net(part);
  if (sd3::is_control_net(part)) return sd3::make_control_net(part);
  if (sd3::is_large_control_net(part)) return sd3::make_large_control_net(part);
  throw Error(ErrorKind::Format, part.path(), "holds no ControlNet or T2I-adapter that is known");
}

const std::vector<std::string>& union_control_types() {
  static const std::vector<std::string> names = {"openpose",
                                                 "depth",
                                                 "hed/pidi/scribble/ted",
                                                 "canny/lineart/anime_lineart/mlsd",
                                                 "normal",
                                                 "segment",
                                                 "tile",
                                                 "repaint"};
  return names;
}

}  // namespace distorch::models::control
