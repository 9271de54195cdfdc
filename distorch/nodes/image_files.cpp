#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "distorch/base/error.h"
#include "distorch/media/read_image.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/input_files.h"
#include "distorch/nodes/output_files.h"
#include "distorch/nodes/pictures.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::link;
using graph::text;
using graph::Value;

namespace {

// What distorch/media reads.
std::vector<std::string> picture_names(const Settings& settings) {
  return input_names(settings, {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif",
                                ".bmp", ".dib", ".tif", ".tiff", ".avif"});
}

/// 8-bit pixels as float32 [H, W, C] 0..1.
Tensor to_tensor(const media::Image& image) {
  auto bytes = at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()),
                             {image.height, image.width, image.channels}, at::kByte);
  return bytes.to(at::kFloat) / 255.0;
}

// A picture without alpha has this mask: nothing is marked.
Tensor empty_mask() { return at::zeros({1, 64, 64}); }

// Every frame of an animation and every page becomes one image of the batch, with a mask each:
// where one of them has alpha, the others have masks of its size.
void run_load(Call& call) {
  auto frames = media::read_frames(annotated_path(call.text("image"), call.context<Settings>()));
  auto count = static_cast<std::int64_t>(frames.size());
  bool alpha = std::any_of(frames.begin(), frames.end(),
                           [](const media::Image& frame) { return frame.channels == 4; });
  auto image = at::empty({count, frames[0].height, frames[0].width, 3});
  auto mask = alpha ? at::zeros({count, frames[0].height, frames[0].width})
                    : empty_mask().repeat({count, 1, 1});
  for (std::int64_t i = 0; i < count; ++i) {
    auto frame = std::move(frames[static_cast<std::size_t>(i)]);
    auto pixels = to_tensor(frame);
    image[i].copy_(frame.channels == 1 ? pixels.expand({-1, -1, 3}) : pixels.narrow(2, 0, 3));
    if (frame.channels == 4) mask[i].copy_(1.0 - pixels.select(2, 3));
  }
  call.out(0, Value::of("IMAGE", image));
  call.out(1, Value::of("MASK", mask));
}

// Of the first frame, as ComfyUI does.
void run_load_mask(Call& call) {
  auto picture = media::read_image(annotated_path(call.text("image"), call.context<Settings>()));
  auto pixels = to_tensor(picture);
  auto channel = call.text("channel");
  Tensor mask;
  if (channel == "alpha")
    mask = picture.channels == 4 ? 1.0 - pixels.select(2, 3)
                                 : at::zeros({picture.height, picture.width});
  else
    mask = pixels.select(2, picture.channels == 1 ? 0
                            : channel == "red"    ? 0
                            : channel == "green"  ? 1
                                                  : 2);
  call.out(0, Value::of("MASK", mask.unsqueeze(0).contiguous()));
}

/// How a node saves: into the output folder, or for a look into the temporary one.
struct Saving {
  const char* type;
  int compression;
};

/// What a page shows of the saved files.
graph::Json saved(Call& call, const Tensor& images, const std::string& prefix, const Saving& how) {
  const auto& settings = call.context<Settings>();
  auto results = graph::Json::array();
  if (call.context<streaming::Engine>().plan_only()) return results;
  bool temporary = std::string_view(how.type) == "temp";
  auto place = output_place(prefix, temporary ? settings.temp_folder : settings.output_folder,
                            images.size(2), images.size(1));
  media::PngOptions options;
  options.compression = how.compression;
  if (!settings.disable_metadata)
    options.texts = workflow_texts(call.prompt(), call.extra_pnginfo());
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    auto pixels = images[i].to(at::kCPU, at::kFloat).contiguous();
    if (!at::isfinite(pixels).all().item<bool>())
      throw Error(ErrorKind::Internal, call.place(),
                  "the image holds NaN or infinite values, nothing was saved");
    std::span values(pixels.const_data_ptr<float>(), static_cast<std::size_t>(pixels.numel()));
    auto image =
        media::from_floats(values, static_cast<int>(pixels.size(1)),
                           static_cast<int>(pixels.size(0)), static_cast<int>(pixels.size(2)));
    auto numbered_place = place;
    if (auto at = place.name.find("%batch_num%"); at != std::string::npos)
      numbered_place.name.replace(at, std::string_view("%batch_num%").size(), std::to_string(i));
    auto file = write_numbered(numbered_place, ".png", media::encode_png(image, options));
    results.push_back({{"filename", file}, {"subfolder", place.subfolder}, {"type", how.type}});
  }
  return results;
}

void save(Call& call, const Tensor& images, const std::string& prefix, const Saving& how) {
  if (auto files = saved(call, images, prefix, how); !files.empty())
    call.ui({{"images", std::move(files)}});
}

void run_save(Call& call) {
  call.out(0, call.in("images"));
  save(call, image_input(call, "images"), call.text("filename_prefix"), {"output", 4});
}

// One for the life of the process, so that previews of two processes do not meet.
const std::string& preview_suffix() {
  static const std::string suffix = [] {
    std::random_device random;
    std::string letters;
    for (int i = 0; i < 5; ++i) letters += static_cast<char>('a' + random() % 26);
    return letters;
  }();
  return suffix;
}

std::string preview_prefix() { return "ComfyUI_temp_" + preview_suffix(); }

void run_preview(Call& call) {
  call.out(0, call.in("images"));
  save(call, image_input(call, "images"), preview_prefix(), {"temp", 1});
}

void run_compare(Call& call) {
  graph::Json shown = graph::Json::object();
  for (const char* side : {"a", "b"}) {
    auto input = std::string("image_") + side;
    shown[std::string(side) + "_images"] =
        call.has(input)
            ? saved(call, image_input(call, input.c_str()),
                    std::string("comfy.compare.") + side + "_temp_" + preview_suffix(), {"temp", 1})
            : graph::Json::array();
  }
  call.ui(std::move(shown));
}

void run_mask_preview(Call& call) {
  call.out(0, call.in("mask"));
  auto gray = mask_input(call, "mask").unsqueeze(-1).expand({-1, -1, -1, 3});
  save(call, gray, preview_prefix(), {"temp", 4});
}

void add_loading_nodes(graph::Catalog& catalog, App& app) {
  auto names = [&app] { return picture_names(app.settings); };
  auto change = [&app](const Call& call) {
    return ModelCache::identity(annotated_path(call.text("image"), app.settings));
  };
  graph::InputCheck check = {{"image"}, [&app, names](const Call& call) {
                               return missing_input(call.text("image"), app.settings, names());
                             }};
  auto image = choice("image", Choices(names), {.image_upload = true});
  catalog.add({
      .name = "LoadImage",
      .display_name = "Load Image",
      .category = "image",
      .inputs = {image},
      .outputs = {"IMAGE", "MASK"},
      .run = run_load,
      .change_key = change,
      .checks = {check},
  });
  // The page asks a route for the files of the output folder and names them "a.png [output]".
  auto remote = graph::Json{{"image_folder", "output"},
                            {"remote",
                             {{"route", "/internal/files/output"},
                              {"refresh_button", true},
                              {"control_after_refresh", "first"}}}};
  catalog.add({
      .name = "LoadImageOutput",
      .display_name = "Load Image (from Outputs)",
      .category = "image",
      .description = "Opens a picture that was saved before. After a refresh the first of the list "
                     "is taken.",
      .inputs = {choice("image", {}, {.image_upload = true, .combo = true, .extra = remote})},
      .outputs = {"IMAGE", "MASK"},
      .experimental = true,
      .run = run_load,
      .change_key = change,
      .checks = {check},
  });
  catalog.add({
      .name = "LoadImageMask",
      .display_name = "Load Image (as Mask)",
      .category = "mask",
      .inputs = {image, choice("channel", {"alpha", "red", "green", "blue"})},
      .outputs = {"MASK"},
      .run = run_load_mask,
      .change_key = change,
      .checks = {check},
  });
}

}  // namespace

void add_image_file_nodes(graph::Catalog& catalog, App& app) {
  std::vector<graph::Hidden> hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}};
  add_loading_nodes(catalog, app);
  catalog.add({
      .name = "SaveImage",
      .display_name = "Save Image",
      .category = "image",
      .description = "Writes images as PNG files into the output folder, with the workflow inside.",
      .inputs =
          {link("images", "IMAGE", {.tooltip = "What to write, one file an image."}),
           text("filename_prefix",
                {.def = "ComfyUI",
                 .tooltip =
                     "How file names begin; a number follows. %date:yyyy-MM-dd% stands for the "
                     "date, %KSampler.seed% for an input of a node, folder/name for a folder below "
                     "the output folder."})},
      .hidden = hidden,
      .outputs = {{"IMAGE", "images"}},
      .output_node = true,
      .run = run_save,
  });
  catalog.add({
      .name = "PreviewImage",
      .display_name = "Preview Image",
      .category = "image",
      .description = "Shows images: they are written into the temporary folder only.",
      .inputs = {link("images", "IMAGE")},
      .hidden = hidden,
      .outputs = {{"IMAGE", "images"}},
      .output_node = true,
      .run = run_preview,
  });
  catalog.add({
      .name = "ImageCompare",
      .display_name = "Compare Images",
      .category = "image",
      .description = "Shows two images one over the other, with a line to move between them.",
      .python_module = "comfy_extras.nodes_image_compare",
      .inputs = {link("compare_view", "IMAGECOMPARE", {.extra = {{"socketless", true}}}),
                 optional(link("image_a", "IMAGE")), optional(link("image_b", "IMAGE"))},
      .hidden = hidden,
      .output_node = true,
      .experimental = true,
      .newer_schema = true,
      .run = run_compare,
  });
  catalog.add({
      .name = "MaskPreview",
      .category = "mask",
      .description = "Shows masks in gray: they are written into the temporary folder only.",
      .python_module = "comfy_extras.nodes_mask",
      .inputs = {link("mask", "MASK")},
      .hidden = hidden,
      .outputs = {{"MASK", "mask"}},
      .output_node = true,
      .run = run_mask_preview,
  });
}

}  // namespace distorch::nodes
