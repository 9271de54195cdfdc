#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <random>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/nodes/drawing.h"
#include "distorch/nodes/florence2.h"
#include "distorch/nodes/florence2_answers.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize_bytes.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using florence2::Form;
using florence2::Region;
using florence2::Task;
using graph::Call;
using graph::Json;
using graph::Value;

namespace {

/// What is asked of every picture.
struct Request {
  const Task* task = nullptr;
  std::vector<std::int64_t> ids;  // the question with start and end
  models::florence2::GenerateOptions options;
  bool fill = true;
  std::vector<std::string> selected;  // numbers and labels of regions whose masks are wanted
  bool one_picture = true;
};

/// What one picture gives.
struct Result {
  std::string caption;
  Tensor image, mask;  // undefined where the task gives none
  Json data = Json::array();
};

Tensor ids_tensor(const std::vector<std::int64_t>& ids) {
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

streaming::RunNeeds needs_of(const Florence2& florence, const Request& request) {
  const auto length = static_cast<std::int64_t>(request.ids.size());
  streaming::RunNeeds needs;
  needs.key = fmt::format("write {}x{} {} tokens {} beams", florence.width, florence.height, length,
                          request.options.beams);
  needs.loras = florence.loras;
  // The decoder runs once for each token.
  needs.steps = static_cast<double>(std::min<std::int64_t>(request.options.new_tokens, 100));
  needs.profile = [&florence, &request, length](const RigDevice& compute) {
    auto fresh = florence.loaded->make();
    return streaming::profile_model(
        *florence.loaded->weights, fresh->manifest(), compute, [&](at::Device device) {
          const auto numbers = at::TensorOptions().device(device);
          auto pixels =
              at::empty({1, 3, florence.height, florence.width}, numbers.dtype(at::kFloat));
          auto encoded = fresh->language().encode(fresh->vision().forward(pixels),
                                                  at::empty({1, length}, numbers.dtype(at::kLong)));
          auto state = fresh->language().begin(encoded);
          fresh->language().next(at::empty({std::max<std::int64_t>(request.options.beams, 1), 1},
                                           numbers.dtype(at::kLong)),
                                 state);
        });
  };
  return needs;
}

/// The answer about one picture [H, W, 3], with its special tokens.
std::string answer(Call& call, const Florence2& florence, const Request& request,
                   const Tensor& picture, at::Generator& generator) {
  const auto device = device::to_torch(florence.loaded->weights->options().compute);
  const auto& network = *florence.loaded->network;
  auto pixels = florence2_pixels(picture, florence.width, florence.height).to(device);
  auto encoded = network.language().encode(network.vision().forward(pixels),
                                           ids_tensor(request.ids).to(device));
  const auto most = static_cast<double>(request.options.new_tokens);
  const auto ids = models::florence2::generate(
      network.language(), encoded, florence.writing, request.options, generator,
      [&](std::int64_t written) { call.progress(static_cast<double>(written), most); });
  return florence.tokenizer->decode(ids);
}

constexpr std::array<Color, 8> kColors = {{{0, 0, 1},
                                           {1, 0.65f, 0},
                                           {0, 0.5f, 0},
                                           {0.5f, 0, 0.5f},
                                           {0.65f, 0.16f, 0.16f},
                                           {1, 0.41f, 0.71f},
                                           {0, 0.75f, 0.75f},
                                           {0.5f, 0.5f, 0}}};
constexpr Color kRed = {1, 0, 0};

const Color& color_of(std::size_t index) { return kColors[index % kColors.size()]; }

/// Corners in order: left, top, right, bottom.
std::vector<double> ordered(const std::vector<double>& box) {
  return {std::min(box[0], box[2]), std::min(box[1], box[3]), std::max(box[0], box[2]),
          std::max(box[1], box[3])};
}

Json json_of(const std::vector<double>& numbers) {
  auto list = Json::array();
  for (double number : numbers) list.push_back(number);
  return list;
}

/// Boxes with their numbers and labels.
void draw_boxes(const Request& request, const std::vector<Region>& regions, Result& result) {
  const auto height = result.image.size(0), width = result.image.size(1);
  Drawing drawing(result.image);
  auto mask = at::zeros({height, width});
  auto wanted = [&](const std::string& name) {
    return std::find(request.selected.begin(), request.selected.end(), name) !=
           request.selected.end();
  };
  for (std::size_t i = 0; i < regions.size(); ++i) {
    const auto& label = regions[i].label;
    const auto box = ordered(regions[i].shapes[0]);
    if (request.selected.empty() || wanted(std::to_string(i)) || wanted(label))
      fill_rectangle(mask, box);
    drawing.outline({box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]}, kRed, 1);
    // Above the box, below it where there is no room.
    const auto text = fmt::format("{}.{}", i, label);
    const auto taken = static_cast<double>(Drawing::label_width(text));
    const auto x = std::max(0.0, std::min(box[0], static_cast<double>(width) - taken));
    const auto y = box[1] < 14 ? box[3] + 3 : box[1] - 13;
    drawing.label(text, x, y, request.one_picture ? color_of(i) : kRed);
  }
  result.image = drawing.picture();
  if (request.fill) result.mask = mask;
}

Json boxes_of(const std::vector<Region>& regions) {
  auto boxes = Json::array();
  for (const auto& region : regions) boxes.push_back(json_of(region.shapes[0]));
  return boxes;
}

/// A shape in its colour over the picture and white in the mask.
void draw_shape(const Request& request, const std::vector<double>& points, const Color& color,
                Drawing& drawing, Tensor& mask) {
  auto inside = at::zeros_like(mask);
  fill_polygon(inside, points);
  if (request.fill) drawing.blend(inside, color, 180.0 / 255.0);
  drawing.outline(points, color, 3);
  mask = at::maximum(mask, inside);
}

void draw_polygons(const Request& request, const std::vector<Region>& regions, Result& result) {
  const auto height = result.image.size(0), width = result.image.size(1);
  Drawing drawing(result.image);
  result.mask = at::zeros({height, width});
  for (std::size_t i = 0; i < regions.size(); ++i)
    for (auto points : regions[i].shapes) {
      for (std::size_t p = 0; p < points.size(); ++p)
        points[p] =
            std::clamp(points[p], 0.0, static_cast<double>(p % 2 == 0 ? width : height) - 1);
      if (points.size() >= 6) draw_shape(request, points, color_of(i), drawing, result.mask);
    }
  result.image = drawing.picture();
}

void draw_lines(const Request& request, const std::vector<Region>& regions, Result& result) {
  const auto height = result.image.size(0), width = result.image.size(1);
  Drawing drawing(result.image);
  result.mask = at::zeros({height, width});
  for (std::size_t i = 0; i < regions.size(); ++i) {
    const auto& points = regions[i].shapes[0];
    auto shares = points;
    for (std::size_t p = 0; p < shares.size(); ++p)
      shares[p] /= static_cast<double>(p % 2 == 0 ? width : height);
    result.data.push_back({{"label", regions[i].label}, {"box", json_of(shares)}});
    draw_shape(request, points, color_of(i), drawing, result.mask);
    drawing.label(regions[i].label, points[0] + 8, points[1] + 2, color_of(i));
  }
  result.image = drawing.picture();
}

/// What an answer says about a picture [H, W, 3].
Result read_answer(const Request& request, const std::string& text, const Tensor& picture) {
  const auto form = request.task->form;
  Result result;
  result.caption = florence2::caption_of(text, form);
  if (form == Form::Text) {
    if (request.task->takes_text) result.image = picture;
    return result;
  }
  const auto regions = florence2::regions_of(text, form, picture.size(1), picture.size(0));
  result.image = picture;
  switch (form) {
    case Form::Polygons: draw_polygons(request, regions, result); break;
    case Form::TextLines: draw_lines(request, regions, result); break;
    default: draw_boxes(request, regions, result);
  }
  if (form == Form::Boxes || form == Form::Proposals) {
    result.data = Json::array({boxes_of(regions)});
  } else if (form == Form::Grounding) {
    auto labels = Json::array();
    for (const auto& region : regions) labels.push_back(region.label);
    result.data = Json::array({Json{{"bboxes", boxes_of(regions)}, {"labels", std::move(labels)}}});
  }
  return result;
}

std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  if (text.empty()) return parts;
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Request request_of(const Call& call, const Florence2& florence) {
  Request request;
  request.task = &florence2::task_named(call.text("task"), call.place());
  const auto text = call.text("text_input");
  if (!text.empty() && !request.task->takes_text)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("the task '{}' takes no 'text_input'; caption_to_phrase_grounding, "
                            "referring_expression_segmentation and docvqa do",
                            request.task->name));
  if (text.empty() && request.task->name == "docvqa")
    throw Error(ErrorKind::Usage, call.place(), "docvqa wants a question in 'text_input'");
  request.ids = florence.tokenizer->encode(florence2::question(*request.task, text));
  request.ids.insert(request.ids.begin(), florence.tokenizer->special("<s>"));
  request.ids.push_back(florence.tokenizer->special("</s>"));
  request.options = {call.integer("max_new_tokens"), call.integer("num_beams"),
                     call.boolean("do_sample")};
  request.fill = call.boolean("fill_mask");
  request.selected = parts_of(call.text("output_mask_select"));
  return request;
}

/// Everything of the batch, empty pictures where there is nothing.
void put_out(Call& call, const std::vector<Result>& results) {
  std::vector<Tensor> images, masks;
  auto captions = Json::array(), data = Json::array();
  for (const auto& result : results) {
    if (result.image.defined()) images.push_back(result.image);
    if (result.mask.defined()) masks.push_back(result.mask);
    captions.push_back(result.caption);
    for (const auto& entry : result.data) data.push_back(entry);
  }
  image_out(call, 0, images.empty() ? at::zeros({1, 64, 64, 3}) : at::stack(images));
  mask_out(call, 1, masks.empty() ? at::zeros({1, 64, 64}) : at::stack(masks));
  call.out(2, Value::constant(captions.size() == 1 ? captions[0] : captions));
  call.out(3, Value::constant(data));
}

/// A seed of 0 stands for any.
at::Generator generator_of(std::uint64_t seed) {
  return at::detail::createCPUGenerator(seed == 0 ? std::random_device()() : florence2_seed(seed));
}

/// "keep_model_loaded" is not looked at: weights rest where they are until others need the room.
void run(Call& call) {
  const auto& florence = call.get<Florence2>("florence2_model");
  auto pictures = match_channels(image_input(call, "image"), 3).contiguous();
  auto request = request_of(call, florence);
  request.one_picture = pictures.size(0) == 1;
  auto& engine = call.context<streaming::Engine>();
  auto use = engine.prepare(florence.loaded->weights, needs_of(florence, request));
  auto generator = generator_of(call.seed("seed"));
  std::vector<Result> results;
  for (const auto& picture : pictures.unbind(0)) {
    const auto text =
        engine.plan_only() ? std::string() : answer(call, florence, request, picture, generator);
    results.push_back(read_answer(request, text, picture));
  }
  put_out(call, results);
}

}  // namespace

Tensor florence2_pixels(const Tensor& picture, std::int64_t width, std::int64_t height) {
  auto bytes = (picture.to(at::kCPU, at::kFloat) * 255.0).clamp(0, 255).to(at::kByte);
  auto resized = resize_bicubic_bytes(bytes, width, height);
  auto shares = (resized.to(at::kDouble) * (1.0 / 255.0)).to(at::kFloat);
  const auto mean = at::tensor({0.485f, 0.456f, 0.406f}),
             spread = at::tensor({0.229f, 0.224f, 0.225f});
  return ((shares - mean) / spread).permute({2, 0, 1}).unsqueeze(0).contiguous();
}

std::uint64_t florence2_seed(std::uint64_t seed) {
  const auto digits = std::to_string(seed);
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(digits.data()), digits.size(), digest.data());
  std::uint64_t last = 0;
  for (auto at = digest.size() - 4; at < digest.size(); ++at) last = last << 8 | digest[at];
  return last;
}

void add_florence2_run_node(graph::Catalog& catalog) {
  std::vector<std::string> names;
  for (const auto& task : florence2::tasks()) names.push_back(task.name);
  catalog.add({
      .name = "Florence2Run",
      .display_name = "Florence2Run",
      .category = "Florence2",
      .python_module = "custom_nodes.ComfyUI-Florence2",
      .inputs = {graph::link("image", "IMAGE"), graph::link("florence2_model", "FL2MODEL"),
                 graph::text("text_input", {.def = "", .multiline = true}),
                 graph::choice("task", graph::Choices(names)),
                 graph::boolean("fill_mask", {.def = true}),
                 graph::optional(graph::boolean("keep_model_loaded", {.def = false})),
                 graph::optional(
                     graph::integer("max_new_tokens", {.def = 1024, .min = 1, .max = 4096})),
                 graph::optional(graph::integer("num_beams", {.def = 3, .min = 1, .max = 64})),
                 graph::optional(graph::boolean("do_sample", {.def = true})),
                 graph::optional(graph::text("output_mask_select", {.def = ""})),
                 graph::optional(graph::integer(
                     "seed", {.def = 1, .min = 1, .max = std::uint64_t{0xffffffffffffffff}}))},
      .outputs = {{"IMAGE", "image"}, {"MASK", "mask"}, {"STRING", "caption"}, {"JSON", "data"}},
      .run = run,
  });
}

}  // namespace distorch::nodes
