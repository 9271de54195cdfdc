#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/media/exr.h"
#include "distorch/media/sent_picture.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/output_files.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::Value;

namespace {

/// Light from what a screen of sRGB is sent. Source: IEC 61966-2-1.
Tensor from_srgb(const Tensor& x) {
  return at::where(x <= 0.04045, x / 12.92, at::pow((x + 0.055) / 1.055, 2.4));
}

/// Scene light from a hybrid log-gamma signal. Source: ITU-R BT.2100, table 5.
Tensor from_hlg(const Tensor& x) {
  constexpr double a = 0.17883277, b = 0.28466892, c = 0.55991072928;
  auto high = (at::exp((x.clamp_min(0.5) - c) / a) + b) / 12.0;
  return at::where(x <= 0.5, x * x / 3.0, high);
}

/// A picture [H, W, C] as linear light; alpha stays as it is.
Tensor linear_light(const Tensor& image, const std::string& space) {
  if (space == "linear") return image;
  auto colors = std::min<std::int64_t>(3, image.size(2));
  auto light =
      space == "HDR" ? from_hlg(image.narrow(2, 0, colors)) : from_srgb(image.narrow(2, 0, colors));
  if (image.size(2) != 4) return light;
  return at::cat({light, image.narrow(2, 3, 1)}, 2);
}

/// How SaveImageAdvanced writes.
struct Format {
  explicit Format(const Call& call)
      : name(call.text("format")),
        depth(call.text("format.bit_depth")),
        space(call.text("format.input_color_space")) {}
  std::string name, depth, space;
};

std::string encoded(const Tensor& image, const Format& format, std::vector<media::Text> texts) {
  auto height = static_cast<int>(image.size(0)), width = static_cast<int>(image.size(1)),
       channels = static_cast<int>(image.size(2));
  auto count = static_cast<std::size_t>(image.numel());
  if (format.name == "exr") {
    auto light = linear_light(image, format.space).contiguous();
    media::ExrOptions options{.texts = std::move(texts)};
    if (format.space == "HDR") options.chromaticities = media::kRec2020;
    return media::encode_exr(std::span(light.const_data_ptr<float>(), count), width, height,
                             channels, options);
  }
  media::PngOptions options{.texts = std::move(texts)};
  if (format.depth != "16-bit")
    return media::encode_png(media::from_floats(std::span(image.const_data_ptr<float>(), count),
                                                width, height, channels),
                             options);
  auto scaled = (image * 65535.0).clamp(0, 65535).to(at::kInt).contiguous();
  std::vector<std::uint16_t> values(count);
  std::transform(scaled.const_data_ptr<int>(), scaled.const_data_ptr<int>() + count, values.begin(),
                 [](int value) { return static_cast<std::uint16_t>(value); });
  return media::encode_png16(values, width, height, channels, options);
}

void run_save(Call& call) {
  const auto& settings = call.context<Settings>();
  const auto& images = image_input(call, "images");
  image_out(call, 0, images);
  if (call.context<streaming::Engine>().plan_only()) return;
  Format format(call);
  auto place = output_place(call.text("filename_prefix"), settings.output_folder, images.size(2),
                            images.size(1));
  std::vector<media::Text> texts;
  if (!settings.disable_metadata) texts = workflow_texts(call.prompt(), call.extra_pnginfo());
  auto results = graph::Json::array();
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    auto image = images[i].to(at::kCPU, at::kFloat).contiguous();
    if (!at::isfinite(image).all().item<bool>())
      throw Error(ErrorKind::Internal, call.place(),
                  "the image holds NaN or infinite values, nothing was saved");
    auto numbered_place = place;
    constexpr std::string_view mark = "%batch_num%";
    if (auto at = place.name.find(mark); at != std::string::npos)
      numbered_place.name.replace(at, mark.size(), std::to_string(i));
    auto file =
        write_numbered(numbered_place, "." + format.name, encoded(image, format, texts), "");
    results.push_back({{"filename", file}, {"subfolder", place.subfolder}, {"type", "output"}});
  }
  call.ui({{"images", results}});
}

/// Steps count from 0, as clients of ComfyUI know them.
void run_send(Call& call) {
  const auto& images = image_input(call, "images");
  if (call.context<streaming::Engine>().plan_only()) return;
  auto count = images.size(0);
  for (std::int64_t i = 0; i < count; ++i) {
    auto image = images[i].to(at::kCPU, at::kFloat).contiguous();
    auto values = std::span(image.const_data_ptr<float>(), static_cast<std::size_t>(image.numel()));
    auto picture =
        media::from_floats(values, static_cast<int>(image.size(1)), static_cast<int>(image.size(0)),
                           static_cast<int>(image.size(2)));
    call.preview(Value::of("PREVIEW", media::SentPicture{std::move(picture)}));
    call.progress(static_cast<double>(i), static_cast<double>(count));
  }
}

graph::Input detail(const char* name, graph::Choices choices, const char* def, const char* tip) {
  return choice(name, std::move(choices),
                {.def = def, .tooltip = tip, .extra = {{"advanced", true}}});
}

}  // namespace

void add_image_save_nodes(graph::Catalog& catalog) {
  std::vector<graph::Option> formats = {
      {"png",
       {detail("bit_depth", {"8-bit", "16-bit"}, "8-bit", ""),
        detail("input_color_space", {"sRGB"}, "sRGB", "")}},
      {"exr",
       {detail("bit_depth", {"32-bit float"}, "32-bit float", ""),
        detail("input_color_space", {"sRGB", "HDR", "linear"}, "sRGB",
               "What the numbers of the images mean; the file gets linear light. sRGB is what most "
               "models make, HDR is hybrid log-gamma with the colours of Rec. 2020, linear goes "
               "into the file unchanged.")}},
  };
  catalog.add({
      .name = "SaveImageAdvanced",
      .display_name = "Save Image (Advanced)",
      .category = "image",
      .description = "Writes images into the output folder, as PNG or as OpenEXR.",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {graph::link("images", "IMAGE", {.tooltip = "What to write, one file an image."}),
                 graph::text("filename_prefix",
                             {.def = "ComfyUI",
                              .multiline = false,
                              .tooltip = "How file names begin; a number follows. Dates and values "
                                         "of nodes are filled in as by Save Image."}),
                 graph::dynamic_choice("format", formats, "The kind of file.")},
      .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
      .outputs = {{"IMAGE", "images"}},
      .output_node = true,
      .newer_schema = true,
      .run = run_save,
  });
  catalog.add({
      .name = "SaveImageWebsocket",
      .category = "api/image",
      .description = "Sends images over the socket of the client that posted the prompt, as PNG "
                     "without the workflow. No file is written.",
      .python_module = "custom_nodes.websocket_image_save",
      .inputs = {graph::link("images", "IMAGE")},
      .output_node = true,
      .run = run_send,
      // Pictures that were sent once are not kept: every prompt sends its own.
      .change_key = [](const Call&) { return std::optional<std::string>(); },
  });
}

}  // namespace distorch::nodes
