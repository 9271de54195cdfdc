#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/media/apng.h"
#include "distorch/media/exif.h"
#include "distorch/media/webp.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/output_files.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/svg.h"

namespace distorch::nodes {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::text;

namespace {

constexpr int kModel = 0x0110, kMake = 0x010f;  // EXIF tags that ComfyUI keeps a workflow in

std::vector<media::Image> frames_of(Call& call, const Tensor& images) {
  std::vector<media::Image> frames;
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    auto image = images[i].to(at::kCPU, at::kFloat).contiguous();
    if (!at::isfinite(image).all().item<bool>())
      throw Error(ErrorKind::Internal, call.place(),
                  "the images hold NaN or infinite values, nothing was saved");
    frames.push_back(media::from_floats(
        std::span(image.const_data_ptr<float>(), static_cast<std::size_t>(image.numel())),
        static_cast<int>(image.size(1)), static_cast<int>(image.size(0)),
        static_cast<int>(image.size(2))));
  }
  return frames;
}

int milliseconds(Call& call) { return static_cast<int>(1000.0 / call.number("fps")); }

std::vector<media::Text> texts_of(Call& call) {
  if (call.context<Settings>().disable_metadata) return {};
  return workflow_texts(call.prompt(), call.extra_pnginfo());
}

/// Each text as "keyword:value": the prompt as the model of the camera, what else there is as its
/// make and, one by one, in the tags before that.
std::string exif_of(const std::vector<media::Text>& texts) {
  std::map<int, std::string> tags;
  int next = kMake;
  for (const auto& text : texts)
    tags[text.keyword == "prompt" ? kModel : next--] = text.keyword + ":" + text.value;
  return tags.empty() ? "" : media::exif_block(tags);
}

struct Written {
  OutputPlace place;
  std::string file;
};

void report(Call& call, const Written& written) {
  call.ui(
      {{"images",
        {{{"filename", written.file}, {"subfolder", written.place.subfolder}, {"type", "output"}}}},
       {"animated", {true}}});
}

OutputPlace place_of(Call& call, const Tensor& images) {
  return output_place(call.text("filename_prefix"), call.context<Settings>().output_folder,
                      images.size(2), images.size(1));
}

void run_png(Call& call) {
  const auto& images = image_input(call, "images");
  call.out(0, call.in("images"));
  if (call.context<streaming::Engine>().plan_only()) return;
  media::ApngOptions options{.milliseconds = milliseconds(call),
                             .compression = static_cast<int>(call.integer("compress_level")),
                             .texts = texts_of(call)};
  auto bytes = media::encode_apng(frames_of(call, images), options);
  auto place = place_of(call, images);
  report(call, {place, write_numbered(place, ".png", bytes)});
}

void run_webp(Call& call) {
  const auto& images = image_input(call, "images");
  call.out(0, call.in("images"));
  if (call.context<streaming::Engine>().plan_only()) return;
  auto method = call.text("method");
  media::WebpAnimation options{.milliseconds = milliseconds(call),
                               .lossless = call.boolean("lossless"),
                               .quality = static_cast<float>(call.integer("quality")),
                               .method = method == "fastest"   ? 0
                                         : method == "slowest" ? 6
                                                               : 4,
                               .exif = exif_of(texts_of(call))};
  auto bytes = media::encode_webp_animation(frames_of(call, images), options);
  auto place = place_of(call, images);
  report(call, {place, write_numbered(place, ".webp", bytes)});
}

/// The workflow as an element that programs do not draw.
std::string svg_metadata(Call& call) {
  graph::Json all = graph::Json::object();
  if (!call.context<Settings>().disable_metadata) {
    if (!call.prompt().is_null()) all["prompt"] = call.prompt();
    if (call.extra_pnginfo().is_object()) all.update(call.extra_pnginfo());
  }
  if (all.empty()) return "";
  auto text = all.dump(2, ' ', true, graph::Json::error_handler_t::replace);
  // What would end the section stays JSON and reads the same.
  const std::string end = "]]>";
  for (auto at = text.find(end); at != std::string::npos; at = text.find(end, at))
    text.replace(at, end.size(), "]]\\u003e");
  return "\n  <metadata>\n    <![CDATA[\n" + text + "\n    ]]>\n  </metadata>\n";
}

/// A drawing with `metadata` behind each of its opening "<svg ...>" tags.
std::string with_metadata(const std::string& svg, const std::string& metadata) {
  std::string result;
  std::size_t done = 0;
  while (!metadata.empty()) {
    auto tag = svg.find("<svg", done);
    auto end = tag == std::string::npos ? tag : svg.find('>', tag);
    if (end == std::string::npos) break;
    result += svg.substr(done, end + 1 - done) + metadata;
    done = end + 1;
  }
  return result + svg.substr(done);
}

void run_svg(Call& call) {
  const auto& drawings = call.get<SvgDrawings>("svg");
  call.out(0, call.in("svg"));
  if (call.context<streaming::Engine>().plan_only()) return;
  auto place = output_place(call.text("filename_prefix"), call.context<Settings>().output_folder);
  const auto metadata = svg_metadata(call);
  auto results = graph::Json::array();
  for (std::size_t i = 0; i < drawings.size(); ++i) {
    auto own = place;
    constexpr std::string_view mark = "%batch_num%";
    if (auto at = place.name.find(mark); at != std::string::npos)
      own.name.replace(at, mark.size(), std::to_string(i));
    auto file = write_numbered(own, ".svg", with_metadata(drawings[i], metadata));
    results.push_back({{"filename", file}, {"subfolder", place.subfolder}, {"type", "output"}});
  }
  call.ui({{"images", results}});
}

graph::NodeType saving(const char* name, const char* tip, std::vector<graph::Input> inputs,
                       void (*run)(Call&)) {
  std::vector<graph::Input> all = {
      link("images", "IMAGE"), text("filename_prefix", {.def = "ComfyUI"}),
      number("fps", {.def = 6.0, .min = 0.01, .max = 1000.0, .step = 0.01})};
  all.insert(all.end(), inputs.begin(), inputs.end());
  return {.name = name,
          .display_name = name,
          .category = "image/animation",
          .description = tip,
          .python_module = "comfy_extras.nodes_images",
          .inputs = std::move(all),
          .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
          .outputs = {{"IMAGE", "images"}},
          .output_node = true,
          .run = run};
}

}  // namespace

void add_animation_nodes(graph::Catalog& catalog) {
  catalog.add(saving("SaveAnimatedPNG", "Writes a batch as the frames of one animated PNG.",
                     {integer("compress_level", {.def = 4, .min = 0, .max = 9})}, run_png));
  catalog.add(saving(
      "SaveAnimatedWEBP", "Writes a batch as the frames of one animated WebP.",
      {boolean("lossless", {.def = true}), integer("quality", {.def = 80, .min = 0, .max = 100}),
       choice("method", {"default", "fastest", "slowest"})},
      run_webp));
  catalog.add({
      .name = "SaveSVGNode",
      .display_name = "SaveSVGNode",
      .category = "image/save",
      .description = "Writes drawings into the output folder.",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {link("svg", "SVG"),
                 text("filename_prefix", {.def = "svg/ComfyUI",
                                          .tooltip = "How file names begin; a number follows."})},
      .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
      .outputs = {{"SVG", "svg"}},
      .output_node = true,
      .run = run_svg,
  });
}

}  // namespace distorch::nodes
