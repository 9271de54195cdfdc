#include "distorch/models/qwen_image/config.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::qwen_image {

std::vector<std::int64_t> Config::axes() const {
  auto time = head_width() / 8;
  auto side = (head_width() - time) / 2;
  return {time, side, side};
}

Config config_of(const weights::Checkpoint& part) {
  Config c;
  c.width = size_of(part, "img_in.weight", 0);
  c.latent_channels = size_of(part, "img_in.weight", 1) / (kPatch * kPatch);
  c.text_width = size_of(part, "txt_norm.weight", 0);
  c.layers = part.count("transformer_blocks.");
  auto head = size_of(part, "transformer_blocks.0.attn.norm_q.weight", 0);
  if (c.width % head != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a transformer of width {} with heads of {} numbers, which do "
                            "not go together",
                            c.width, head));
  c.heads = c.width / head;
  for (int i = 0; i < part.count("model_patch."); ++i)
    c.patch_channels.push_back(size_of(part, fmt::format("model_patch.{}.img_in.weight", i), 1) /
                               (kPatch * kPatch));
  c.picture_kind = part.has("time_text_embed.addition_t_embedding.weight");
  if (c.picture_kind)
    c.references = ReferenceMethod::NegativeIndex;
  else if (part.has("__index_timestep_zero__"))
    c.references = ReferenceMethod::IndexTimestepZero;
  return c;
}

}  // namespace distorch::models::qwen_image
