#include <fmt/format.h>

#include "distorch/models/control/control_net.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::control {
namespace {

using weights::Checkpoint;

void rename_both(Checkpoint& c, const std::string& from, const std::string& to) {
  for (const char* end : {".weight", ".bias"}) c.rename(from + end, to + end);
}

}  // namespace

ControlNetConfig control_net_config(const Checkpoint& c) {
  constexpr int hint_convolutions = 8;
  ControlNetConfig config;
  config.encoder = sd::encoder_config(c);
  config.hint_widths.push_back(size_of(c, "input_hint_block.0.weight", 1));
  for (int i = 0; i < hint_convolutions; ++i)
    config.hint_widths.push_back(size_of(c, fmt::format("input_hint_block.{}.weight", 2 * i), 0));
  if (c.has_prefix("control_add_embedding.")) {
    config.types = size_of(c, "task_embedding", 0);
    config.type_width = size_of(c, "task_embedding", 1);
    config.type_layers = c.count("transformer_layes.");
  }
  return config;
}

Checkpoint with_original_names(const Checkpoint& part) {
  if (!part.has("controlnet_cond_embedding.conv_in.weight")) return part;
  auto renamed = sd::with_original_names(part);
  auto hidden = part.count("controlnet_cond_embedding.blocks.");
  rename_both(renamed, "controlnet_cond_embedding.conv_in", "input_hint_block.0");
  for (int i = 0; i < hidden; ++i)
    rename_both(renamed, fmt::format("controlnet_cond_embedding.blocks.{}", i),
                fmt::format("input_hint_block.{}", 2 * (i + 1)));
  rename_both(renamed, "controlnet_cond_embedding.conv_out",
              fmt::format("input_hint_block.{}", 2 * (hidden + 1)));
  for (int i = 0; i < part.count("controlnet_down_blocks."); ++i)
    rename_both(renamed, fmt::format("controlnet_down_blocks.{}", i),
                fmt::format("zero_convs.{}.0", i));
  rename_both(renamed, "controlnet_mid_block", "middle_block_out.0");
  return renamed;
}

}  // namespace distorch::models::control
