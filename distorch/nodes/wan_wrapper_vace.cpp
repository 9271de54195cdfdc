// Frames that a model of the kind VACE follows or fills in.
#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/wan_wrapper.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;

namespace {

constexpr std::int64_t kMultiple = 16, kCell = 8, kFramesOfCell = 4;
constexpr double kGray = 0.5;

struct Size {
  std::int64_t width, height;
};

Tensor resized(const Tensor& pictures, Size size, const char* method, bool crop) {
  return resize_image(pictures, {size.width, size.height, method, crop});
}

/// The pictures side by side, with white around them to the video's shape, in its size.
Tensor reference_of(const Tensor& pictures, Size size) {
  auto all = at::cat(pictures.narrow(3, 0, 3).split(1), 2);
  const auto height = all.size(1), width = all.size(2);
  const auto shape = static_cast<double>(size.width) / static_cast<double>(size.height);
  auto padded = all;
  if (static_cast<double>(width) / static_cast<double>(height) > shape) {
    const auto wanted = static_cast<std::int64_t>(static_cast<double>(width) / shape);
    padded = at::ones({1, wanted, width, 3});
    padded.narrow(1, (wanted - height) / 2, height).copy_(all);
  } else if (static_cast<double>(width) / static_cast<double>(height) < shape) {
    const auto wanted = static_cast<std::int64_t>(static_cast<double>(height) * shape);
    padded = at::ones({1, height, wanted, 3});
    padded.narrow(2, (wanted - width) / 2, width).copy_(all);
  }
  return resized(padded, size, "lanczos", true);
}

/// The mask's pixels of each cell as channels, [64, T, h, w]; each latent frame has those of a
/// frame near it.
Tensor mask_channels(const Tensor& mask) {
  const auto frames = mask.size(0), rows = mask.size(1) / kCell, columns = mask.size(2) / kCell;
  auto cells = mask.reshape({frames, rows, kCell, columns, kCell})
                   .permute({2, 4, 0, 1, 3})
                   .reshape({kCell * kCell, frames, rows, columns});
  const auto count = (frames + kFramesOfCell - 1) / kFramesOfCell;
  std::vector<std::int64_t> nearest;
  for (std::int64_t i = 0; i < count; ++i)
    nearest.push_back(std::min(
        frames - 1,
        static_cast<std::int64_t>((static_cast<double>(i) + 0.5) * static_cast<double>(frames) /
                                  static_cast<double>(count))));
  return cells.index_select(1, at::tensor(nearest, at::TensorOptions(at::kLong)));
}

/// What one node encodes.
class VaceFrames {
 public:
  explicit VaceFrames(Call& call)
      : call_(call),
        coding_(video_vae(call), call.context<streaming::Engine>()),
        frames_(call.integer("num_frames")),
        size_{call.integer("width") / kMultiple * kMultiple,
              call.integer("height") / kMultiple * kMultiple} {
    constexpr std::int64_t channels = 16;
    if (coding_.shape().latent_channels != channels)
      throw Error(ErrorKind::Shape, coding_.file(),
                  "is no VAE of Wan 2.1 (wan_2.1_vae), which models of the kind VACE work with");
  }

  Size size() const { return size_; }
  std::int64_t frames() const { return frames_; }

  /// [96, T, h, w], with the reference's frame first.
  Tensor context() {
    auto video = at::full({frames_, size_.height, size_.width, 3}, kGray);
    if (call_.has("input_frames")) {
      auto given = image_input(call_, "input_frames").narrow(3, 0, 3);
      video =
          resized(given.narrow(0, 0, std::min(frames_, given.size(0))), size_, "lanczos", false);
    }
    auto mask = at::ones({video.size(0), size_.height, size_.width});
    if (call_.has("input_masks")) {
      auto given = mask_input(call_, "input_masks");
      mask = resize(given.narrow(0, 0, std::min(frames_, given.size(0))).unsqueeze(1),
                    {size_.width, size_.height, "nearest-exact", false})
                 .squeeze(1);
      if (mask.size(0) == 1) mask = mask.expand({video.size(0), -1, -1}).contiguous();
    }
    if (mask.size(0) != video.size(0))
      throw Error(ErrorKind::Shape, call_.place(),
                  "needs as many input_masks as input_frames, or one for all");
    auto places = mask.unsqueeze(-1);
    auto stays = encode((video - kGray) * (1 - places) + kGray),
         anew = encode((video - kGray) * places + kGray);
    auto latent = at::cat({stays, anew});
    auto channels = mask_channels(mask);
    if (call_.has("ref_images")) {
      auto picture = encode(reference_of(image_input(call_, "ref_images"), size_));
      latent = at::cat({at::cat({picture, at::zeros_like(picture)}), latent}, 1);
      channels = at::cat({at::zeros_like(channels.narrow(1, 0, 1)), channels}, 1);
    }
    return at::cat({latent, channels});
  }

 private:
  Tensor encode(const Tensor& pixels) {
    const models::vae::TileSize tile{size_.width / 2, size_.height / 2,
                                     std::min(size_.width, size_.height) / kCell};
    auto coded = call_.boolean("tiled_vae") ? coding_.encode_tiled(pixels, tile, {})
                                            : coding_.encode(pixels);
    return models::wan21_latent().into_network(coded).select(0, 0);
  }

  Call& call_;
  VaeCoding coding_;
  std::int64_t frames_;
  Size size_;
};

void run_vace(Call& call) {
  VaceFrames frames(call);
  VaceControl control{frames.context(), call.number("strength"), call.number("vace_start_percent"),
                      call.number("vace_end_percent")};
  ImageEmbeds embeds{.frames = frames.frames(),
                     .height = frames.size().height / kCell,
                     .width = frames.size().width / kCell,
                     .has_reference = call.has("ref_images"),
                     .vace = {std::move(control)}};
  if (call.has("prev_vace_embeds")) {
    const auto& before = call.get<ImageEmbeds>("prev_vace_embeds");
    embeds.has_reference = embeds.has_reference || before.has_reference;
    embeds.vace.insert(embeds.vace.end(), before.vace.begin(), before.vace.end());
  }
  call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
}

}  // namespace

void add_vace_nodes(graph::Catalog& catalog) {
  auto part = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
  };
  graph::NodeType node{
      .name = "WanVideoVACEEncode",
      .display_name = "WanVideo VACE Encode",
      .category = kCategory,
      .description = "Frames, masks and pictures that a model of the kind VACE follows.",
      .python_module = kModule,
      .inputs = {link("vae", "WANVAE"),
                 integer("width", {.def = 832, .min = 64, .max = 8096, .step = 8}),
                 integer("height", {.def = 480, .min = 64, .max = 8096, .step = 8}),
                 integer("num_frames", {.def = 81, .min = 1, .max = 10000, .step = 4}),
                 number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.001}),
                 part("vace_start_percent", 0.0), part("vace_end_percent", 1.0),
                 optional(link("input_frames", "IMAGE")), optional(link("ref_images", "IMAGE")),
                 optional(link("input_masks", "MASK")),
                 optional(link("prev_vace_embeds", "WANVIDIMAGE_EMBEDS")),
                 optional(boolean("tiled_vae", {.def = false}))},
      .outputs = {{"WANVIDIMAGE_EMBEDS", "vace_embeds"}},
      .run = run_vace,
  };
  auto placed = multigpu_variant(node);
  placed.inputs.insert(placed.inputs.begin() + 1, optional(link("load_device", "MULTIGPUDEVICE")));
  catalog.add(std::move(node));
  catalog.add(std::move(placed));
}

}  // namespace distorch::nodes::wan_wrapper
