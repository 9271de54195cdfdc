#include "distorch/graph/older_widgets.h"

#include <string_view>
#include <vector>

namespace distorch::graph {
namespace {

enum class Telling { Device, Text, Number, Switch };

/// An order that a pack's nodes once had, or have had since.
struct OlderOrder {
  std::string_view type;
  /// The value that stands there in this order and in no other.
  std::size_t place;
  Telling telling;
  std::size_t most;  // values
  std::vector<const char*> names;
};

bool tells(const Json& value, Telling telling) {
  if (telling == Telling::Number) return value.is_number();
  if (telling == Telling::Switch) return value.is_boolean();
  if (!value.is_string()) return false;
  if (telling == Telling::Text) return true;
  return value != "main_device" && value != "offload_device";
}

// ComfyUI-MultiGPU before 2.5 (of Florence-2 from 2.5.10 on), KJNodes of 2024.
const std::vector<OlderOrder>& older_orders() {
  static const std::vector<const char*> model = {"model", "base_precision", "quantization",
                                                 "compute_device", "attention_mode"};
  static const std::vector<const char*> florence = {
      "model", "precision", "attention", "convert_to_safetensors", "device", "offload_device"};
  static const std::vector<OlderOrder> orders = {
      {"Florence2ModelLoaderMultiGPU", 3, Telling::Switch, 6, florence},
      {"DownloadAndLoadFlorence2ModelMultiGPU", 3, Telling::Switch, 6, florence},
      {"WanVideoModelLoaderMultiGPU", 3, Telling::Device, 5, model},
      {"WanVideoModelLoaderMultiGPU_2", 3, Telling::Device, 5, model},
      {"WanVideoTextEncodeMultiGPU",
       2,
       Telling::Text,
       5,
       {"positive_prompt", "negative_prompt", "device", "force_offload", "use_disk_cache"}},
      {"WanVideoBlockSwapMultiGPU",
       1,
       Telling::Text,
       10,
       {"blocks_to_swap", "swap_device", "model_offload_device", "offload_img_emb",
        "offload_txt_emb", "use_non_blocking", "vace_blocks_to_swap", "prefetch_blocks",
        "block_swap_debug"}},
      {"ImageResizeKJ",
       6,
       Telling::Number,
       8,
       {"width", "height", "upscale_method", "keep_proportion", "divisible_by", "width_input",
        "height_input", "crop"}},
  };
  return orders;
}

}  // namespace

Json without_older_order(const std::string& type, const Json& values) {
  if (!values.is_array()) return values;
  for (const auto& order : older_orders()) {
    if (order.type != type || values.size() <= order.place || values.size() > order.most ||
        !tells(values[order.place], order.telling))
      continue;
    Json named = Json::object();
    for (std::size_t i = 0; i < values.size() && i < order.names.size(); ++i)
      named[order.names[i]] = values[i];
    return named;
  }
  return values;
}

}  // namespace distorch::graph
