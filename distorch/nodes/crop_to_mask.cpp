#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;

namespace {

constexpr std::int64_t kClear = 204;  // of 255: what counts as inside
constexpr double kNothing = 0.05;     // of a mask: what is less counts as outside

struct Target {
  explicit Target(const Call& call)
      : width(call.integer("width")),
        height(call.integer("height")),
        padding(call.number("pad_factor")),
        grow(call.integer("grow_mask")) {}
  std::int64_t width, height;
  double padding;
  std::int64_t grow;
  double aspect() const { return static_cast<double>(width) / static_cast<double>(height); }
};

/// Whether a mask is white around and black inside, and so probably the wrong way round.
bool is_inverted(const Tensor& mask) {
  auto h = mask.size(0), w = mask.size(1);
  auto border = at::cat({mask[0], mask[h - 1], mask.select(1, 0), mask.select(1, w - 1)});
  auto middle = mask.narrow(0, h / 4, h - h / 4 - h / 4).narrow(1, w / 4, w - w / 4 - w / 4);
  return border.mean().item<double>() > 0.5 && middle.mean().item<double>() < 0.5;
}

/// A mask [1, 1, H, W] wider or, where `by` is negative, narrower by so many pixels.
Tensor grown(const Tensor& mask, std::int64_t by) {
  if (by == 0) return mask;
  auto reach = std::abs(by);
  auto widest = [&](const Tensor& x) {
    return at::max_pool2d(x, {2 * reach + 1, 2 * reach + 1}, {1, 1}, {reach, reach});
  };
  return by > 0 ? widest(mask) : 1.0 - widest(1.0 - mask);
}

/// A rectangle that may reach beyond the picture.
struct Box {
  std::int64_t left = 0, top = 0, right = 0, bottom = 0;
};

/// Where a mask of bytes is clear; nothing where it is not.
std::optional<Box> clear_part(const Tensor& bytes) {
  auto places = at::nonzero(bytes > kClear);
  if (places.numel() == 0) return {};
  auto low = std::get<0>(places.min(0)), high = std::get<0>(places.max(0));
  auto at = [](const Tensor& t, int i) { return t[i].item<std::int64_t>(); };
  return Box{at(low, 1), at(low, 0), at(high, 1), at(high, 0)};
}

/// The rectangle of the target's shape around what is clear.
Box around(const Box& clear, const Target& target) {
  auto w = static_cast<double>(clear.right - clear.left + 1),
       h = static_cast<double>(clear.bottom - clear.top + 1);
  const bool by_width = w / h >= target.aspect();
  auto whole = [](double value) { return static_cast<double>(static_cast<std::int64_t>(value)); };
  auto width = whole(by_width ? w * target.padding : h * target.aspect() * target.padding);
  auto height = whole(by_width ? w / target.aspect() * target.padding : h * target.padding);
  auto half_width = static_cast<std::int64_t>(std::ceil(width / 2)),
       half_height = static_cast<std::int64_t>(std::ceil(height / 2));
  auto start = [](std::int64_t first, std::int64_t last, std::int64_t half) {
    auto centre = static_cast<double>(first + last) / 2.0;
    return static_cast<std::int64_t>(centre - static_cast<double>(half));
  };
  Box box;
  box.left = start(clear.left, clear.right, half_width);
  box.top = start(clear.top, clear.bottom, half_height);
  box.right = box.left + 2 * half_width;
  box.bottom = box.top + 2 * half_height;
  return box;
}

/// Part of x [1, C, H, W], zeros outside.
Tensor cut(const Tensor& x, const Box& box) {
  auto over = [](std::int64_t value) { return std::max<std::int64_t>(0, value); };
  auto left = over(-box.left), top = over(-box.top);
  auto padded = at::constant_pad_nd(
      x, {left, over(box.right - x.size(3)), top, over(box.bottom - x.size(2))});
  return padded.narrow(2, box.top + top, box.bottom - box.top)
      .narrow(3, box.left + left, box.right - box.left);
}

/// One picture [H, W, 3] and its mask [H, W] -> [height, width, 3]. Source: ComfyUI
/// comfy_extras/nodes_images.py, _crop_image_with_mask.
Tensor cropped(const Tensor& picture, const Tensor& own_mask, const Target& target,
               const Tensor& background) {
  auto image = picture.permute({2, 0, 1}).unsqueeze(0).clamp(0, 1);
  auto mask = own_mask.clamp(0, 1);
  if (is_inverted(mask)) mask = 1.0 - mask;
  mask = grown(mask.view({1, 1, mask.size(0), mask.size(1)}), target.grow);
  mask = at::where(mask < kNothing, 0.0, mask);
  auto longest = std::max(image.size(2), image.size(3)),
       most = std::max(target.width, target.height);
  if (longest > most) {
    auto scale = static_cast<double>(most) / static_cast<double>(longest);
    auto side = [&](int dim) {
      return static_cast<std::int64_t>(static_cast<double>(image.size(dim)) * scale);
    };
    Resize smaller{side(3), side(2), "lanczos", false};
    image = resize(image, smaller);
    mask = resize(mask, smaller);
  }
  auto bytes = [](const Tensor& m) { return (m.clamp(0, 1) * 255.0).to(at::kByte); };
  auto clear = clear_part(bytes(mask[0][0]));
  if (!clear) {
    clear = clear_part(255 - bytes(mask[0][0]));
    if (clear) mask = 1.0 - mask;
  }
  if (!clear) log::warn("the mask covers nothing: the whole picture is taken");
  auto box = clear ? around(*clear, target) : Box{0, 0, image.size(3), image.size(2)};
  auto part = cut(image, box), inside = cut(mask, box);
  auto composite = (part * inside + background * (1.0 - inside)).clamp(0, 1);
  return resize(composite, {target.width, target.height, "lanczos", false})[0].permute({1, 2, 0});
}

/// "#ff8000" as [1, 3, 1, 1]; black for anything else.
Tensor color_of(const std::string& text) {
  auto digits = text.substr(
      text.find_first_not_of('#') == std::string::npos ? text.size() : text.find_first_not_of('#'));
  auto color = at::zeros({1, 3, 1, 1});
  if (digits.size() != 6 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    return color;
  for (int i = 0; i < 3; ++i)
    color[0][i] = std::stoi(digits.substr(static_cast<std::size_t>(2 * i), 2), nullptr, 16) / 255.0;
  return color;
}

void run_crop(Call& call) {
  auto images = image_input(call, "images");
  images = images.narrow(3, 0, std::min<std::int64_t>(3, images.size(3)));
  auto masks = mask_input(call, "masks");
  if (masks.size(0) == 1) masks = masks.expand({images.size(0), -1, -1});
  if (masks.size(0) != images.size(0))
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("masks holds {} masks for {} images; one for all or one for each would "
                            "fit",
                            masks.size(0), images.size(0)));
  if (masks.size(1) != images.size(1) || masks.size(2) != images.size(2))
    masks =
        resize(masks.unsqueeze(1), {images.size(2), images.size(1), "bilinear", false}).squeeze(1);
  const Target target(call);
  const auto background = color_of(call.text("background"));
  std::vector<Tensor> results;
  for (std::int64_t i = 0; i < images.size(0); ++i)
    results.push_back(cropped(images[i], masks[i], target, background));
  image_out(call, 0, at::stack(results).contiguous());
}

}  // namespace

void add_crop_to_mask_nodes(graph::Catalog& catalog) {
  auto side = [](const char* name, const char* tip) {
    return integer(name, {.def = 1024, .min = 64, .max = 4096, .step = 8, .tooltip = tip});
  };
  catalog.add({
      .name = "ImageCropToMask",
      .display_name = "Crop Image to Mask",
      .category = "image/transform",
      .description = "Cuts out what a mask shows, on an even background.",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {link("images", "IMAGE"), link("masks", "MASK"), side("width", "In pixels."),
                 side("height", "In pixels."),
                 number("pad_factor", {.def = 1.0,
                                       .min = 1.0,
                                       .max = 2.0,
                                       .step = 0.01,
                                       .tooltip = "How much more than the mask is taken."}),
                 integer("grow_mask", {.def = 0,
                                       .min = -32,
                                       .max = 32,
                                       .step = 1,
                                       .tooltip = "Pixels that the mask becomes wider by first."}),
                 link("background", "COLOR",
                      {.tooltip = "As #rrggbb.",
                       .extra = {{"default", "#000000"}, {"socketless", true}}})},
      .outputs = {{"IMAGE", "images"}},
      .newer_schema = true,
      .run = run_crop,
  });
}

}  // namespace distorch::nodes
