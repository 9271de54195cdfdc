#include "distorch/nodes/wan_common.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/graph/call.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes::wan {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::optional;
using graph::Value;
using sampling::Conditioning;
using sampling::Latent;

namespace {

constexpr std::int64_t kLargest = 16384;

void tell_frames(Call& call, std::int64_t length) {
  auto whole = kFramesOfCell * (latent_frames(length) - 1) + 1;
  if (whole != length)
    log::warn(
        "{}: a video of {} frames has {} in its latent, as lengths are 4n + 1; {} are left "
        "out",
        call.place(), length, whole, length - whole);
}

}  // namespace

std::int64_t latent_frames(std::int64_t frames) { return (frames - 1) / kFramesOfCell + 1; }

Wish::Wish(Call& call)
    : Wish(call, call.integer("width"), call.integer("height"), call.integer("batch_size")) {}

Wish::Wish(Call& call, std::int64_t width, std::int64_t height, std::int64_t batch)
    : width(width), height(height), length(call.integer("length")), batch(batch) {
  tell_frames(call, length);
}

Tensor Wish::blank(std::int64_t channels, std::int64_t pixels) const {
  return at::zeros({batch, channels, latent_frames(length), height / pixels, width / pixels});
}

Tensor Wish::fitted(const Tensor& frames, const char* method) const {
  auto colours = frames.narrow(3, 0, 3).movedim(-1, 1).contiguous();
  return resize(colours, {width, height, method, true}).movedim(1, -1).contiguous();
}

Tensor Wish::gray() const { return at::full({length, height, width, 3}, kGray); }

Tensor Wish::canvas(Call& call) const {
  if (!call.context<streaming::Engine>().plan_only()) return gray();
  return at::empty({length, height, width, 3}, at::TensorOptions(at::kMeta));
}

Tensor Wish::first_of(Call& call, const char* input) const {
  if (!call.has(input)) return {};
  const auto& frames = call.get<Tensor>(input);
  return fitted(frames.narrow(0, 0, std::min(length, frames.size(0))));
}

Tensor Wish::last_of(Call& call, const char* input) const {
  if (!call.has(input)) return {};
  const auto& frames = call.get<Tensor>(input);
  auto count = std::min(length, frames.size(0));
  return fitted(frames.narrow(0, frames.size(0) - count, count));
}

VaeCoding vae_of(Call& call, std::int64_t channels) {
  auto coding = vae_coding_of(call);
  auto shape = coding.shape();
  if (shape.dimensions != 3 || shape.latent_channels != channels)
    throw Error(
        ErrorKind::Shape, coding.file(),
        fmt::format("gives latents of {} channels, and {} makes {} of {}: load the VAE of "
                    "Wan {}",
                    shape.latent_channels, call.place(), shape.dimensions == 3 ? "those" : "video",
                    channels, channels == kChannels ? "2.1 (wan_2.1_vae)" : "2.2 (wan2.2_vae)"));
  return coding;
}

Tensor by_cell(const Tensor& mask) {
  return mask.reshape({1, mask.size(2) / kFramesOfCell, kFramesOfCell, mask.size(3), mask.size(4)})
      .transpose(1, 2)
      .contiguous();
}

namespace {

Tensor behind(const std::string& name, const Tensor& have, const Tensor& more) {
  if (!have.defined()) return more;
  if (have.sizes().slice(2) != more.sizes().slice(2))
    throw Error(ErrorKind::Shape, name,
                fmt::format("of two nodes on one conditioning have to be alike, and are of {} and "
                            "{}: give both the same width, height and length",
                            c10::str(have.sizes().slice(2)), c10::str(more.sizes().slice(2))));
  return at::cat({have, more}, 1);
}

}  // namespace

Conditioning with(Conditioning conditioning, const Given& given) {
  for (auto& item : conditioning) {
    for (const auto& [key, tensor] : given.tensors) item.tensors[key] = tensor;
    for (const auto& [key, number] : given.numbers) item.numbers[key] = number;
    for (const auto& [key, tensor] : given.appended)
      item.tensors[key] = behind(key, item.tensors[key], tensor);
    for (const auto& latent : given.references) item.reference_latents.push_back(latent);
  }
  return conditioning;
}

void answer(Call& call, const Given& given, Tensor samples,
            const std::map<std::string, Tensor>& instead) {
  auto negative = given;
  for (const auto& [name, tensor] : instead) negative.tensors[name] = tensor;
  call.out(0, Value::of("CONDITIONING", with(call.get<Conditioning>("positive"), given)));
  call.out(1, Value::of("CONDITIONING", with(call.get<Conditioning>("negative"), negative)));
  call.out(2, Value::of("LATENT", Latent{std::move(samples), {}, {}}));
}

Tensor nothing(at::IntArrayRef sizes) {
  constexpr std::int64_t second_vae_channels = 48;
  auto format = sizes[1] == second_vae_channels ? models::wan22_latent() : models::wan21_latent();
  return format.out_of_network(at::zeros(sizes));
}

void put(const Tensor& latent, std::int64_t first_channel, const Tensor& given) {
  auto count = std::min(given.size(2), latent.size(2));
  latent.narrow(1, first_channel, given.size(1))
      .narrow(2, 0, count)
      .copy_(given.narrow(2, 0, count));
}

void add_vision(Call& call, std::initializer_list<const char*> inputs, Given& given) {
  std::vector<Tensor> states;
  for (const char* input : inputs)
    if (call.has(input)) states.push_back(call.get<VisionOutput>(input).penultimate);
  if (!states.empty()) given.tensors["clip_vision_penultimate"] = at::cat(states, 1);
}

std::vector<graph::Input> sizes(std::int64_t width, std::int64_t height, std::int64_t length,
                                std::int64_t step) {
  return {integer("width", {.def = width, .min = step, .max = kLargest, .step = step}),
          integer("height", {.def = height, .min = step, .max = kLargest, .step = step}),
          integer("length", {.def = length, .min = 1, .max = kLargest, .step = 4}),
          integer("batch_size", {.def = 1, .min = 1, .max = 4096})};
}

graph::NodeType conditioned(Conditioned node) {
  std::vector<graph::Input> inputs = {link("positive", "CONDITIONING"),
                                      link("negative", "CONDITIONING"), link("vae", "VAE")};
  for (auto& input : sizes(832, 480, node.length)) inputs.push_back(std::move(input));
  for (auto& input : node.required) inputs.push_back(std::move(input));
  for (auto& input : node.more) inputs.push_back(optional(std::move(input)));
  return {
      .name = node.name,
      .category = "conditioning/video_models",
      .python_module = "comfy_extras.nodes_wan",
      .inputs = std::move(inputs),
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}, {"LATENT", "latent"}},
      .newer_schema = true,
      .run = node.run,
  };
}

}  // namespace distorch::nodes::wan
