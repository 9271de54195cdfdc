// The way of a camera as rays of light, which Wan's camera models follow. Source: ComfyUI
// comfy_extras/nodes_camera_trajectory.py; rays as in Sitzmann et al. 2021 (Plücker coordinates).
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <numbers>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/wan_common.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::Value;
using namespace wan;

namespace {

/// What a camera does over the whole video at speed 1: how far it goes (right, down, ahead, in
/// units of kWay) and how far it turns around the line of sight (in units of kTurn).
struct Motion {
  const char* name;
  std::array<double, 3> way;
  double turn;
};
constexpr double kWay = 1.5, kTurn = std::numbers::pi / 3;
constexpr std::array<Motion, 9> kMotions = {{{"Static", {0, 0, 0}, 0},
                                             {"Pan Up", {0, -1, 0}, 0},
                                             {"Pan Down", {0, 1, 0}, 0},
                                             {"Pan Left", {-1, 0, 0}, 0},
                                             {"Pan Right", {1, 0, 0}, 0},
                                             {"Zoom In", {0, 0, 2}, 0},
                                             {"Zoom Out", {0, 0, -2}, 0},
                                             {"Anti Clockwise (ACW)", {0, 0, 0}, -1},
                                             {"ClockWise (CW)", {0, 0, 0}, 1}}};

const Motion& motion_of(const std::string& name) {
  for (const auto& motion : kMotions)
    if (name == motion.name) return motion;
  throw Error(ErrorKind::Usage, "camera_pose", fmt::format("'{}' is no known way", name));
}

/// Focal lengths and centre in pixels.
struct Lens {
  double fx, fy, cx, cy;
};

/// The lens is given as shares of a picture of 16:9, and the video's aspect changes one side of it.
Lens lens_of(Call& call, std::int64_t width, std::int64_t height) {
  constexpr double aspect = 1280.0 / 720.0;
  auto w = static_cast<double>(width), h = static_cast<double>(height);
  auto fx = call.number("fx"), fy = call.number("fy");
  if (aspect > w / h)
    fx = h * aspect * fx / w;
  else
    fy = w / aspect * fy / h;
  return {fx * w, fy * h, call.number("cx") * w, call.number("cy") * h};
}

/// Where each pixel looks, of length 1, in the camera's own directions: [H, W, 3].
Tensor directions(const Lens& lens, std::int64_t width, std::int64_t height) {
  auto x = (at::arange(width, at::kFloat) + 0.5 - lens.cx) / lens.fx;
  auto y = (at::arange(height, at::kFloat) + 0.5 - lens.cy) / lens.fy;
  std::vector<std::int64_t> size = {height, width};
  auto all =
      at::stack({x.view({1, -1}).expand(size), y.view({-1, 1}).expand(size), at::ones(size)}, -1);
  return all / at::linalg_vector_norm(all, 2, at::IntArrayRef{-1}, /*keepdim=*/true);
}

/// A frame's rays, moment and direction of each: [6, H, W].
Tensor rays(const Tensor& directions, const Motion& motion, double how_far) {
  auto angle = how_far * kTurn * motion.turn;
  auto turn = at::tensor({std::cos(angle), -std::sin(angle), 0.0, std::sin(angle), std::cos(angle),
                          0.0, 0.0, 0.0, 1.0},
                         at::kDouble)
                  .view({3, 3})
                  .to(at::kFloat);
  auto place = at::tensor({how_far * kWay * motion.way[0], how_far * kWay * motion.way[1],
                           how_far * kWay * motion.way[2]},
                          at::kDouble)
                   .to(at::kFloat);
  auto seen = directions.matmul(turn.transpose(0, 1));
  auto moment = at::linalg_cross(place.expand_as(seen), seen);
  return at::cat({moment, seen}, -1).permute({2, 0, 1});
}

void run_camera(Call& call) {
  auto width = call.integer("width"), height = call.integer("height");
  auto length = call.integer("length");
  if (length % kFramesOfCell != 1)
    throw Error(
        ErrorKind::Usage, call.place(),
        fmt::format("makes a camera's way of 4n + 1 frames, got a length of {}: {} would do",
                    length, (length - 1) / kFramesOfCell * kFramesOfCell + 1));
  const auto& motion = motion_of(call.text("camera_pose"));
  auto looks = directions(lens_of(call, width, height), width, height);
  constexpr std::int64_t numbers = 6;
  // The first frame fills a cell of its own.
  auto all = at::empty({1, numbers, kFramesOfCell, latent_frames(length), height, width});
  for (std::int64_t i = 0; i < length; ++i) {
    auto how_far = static_cast<double>(i) / static_cast<double>(length) * call.number("speed");
    auto frame = rays(looks, motion, how_far);
    if (i == 0) {
      all.select(3, 0).copy_(frame.view({1, numbers, 1, height, width}));
      continue;
    }
    all.select(3, (i - 1) / kFramesOfCell + 1).select(2, (i - 1) % kFramesOfCell).copy_(frame);
  }
  auto cells = all.view({1, numbers * kFramesOfCell, latent_frames(length), height, width});
  call.out(0, Value::of("WAN_CAMERA_EMBEDDING", cells));
  call.out(1, Value::constant(width));
  call.out(2, Value::constant(height));
  call.out(3, Value::constant(length));
}

}  // namespace

void add_wan_camera_nodes(graph::Catalog& catalog) {
  std::vector<std::string> names;
  for (const auto& motion : kMotions) names.emplace_back(motion.name);
  std::vector<graph::Input> inputs = {graph::choice("camera_pose", names, {.def = "Static"})};
  for (auto& input : sizes(832, 480, 81)) inputs.push_back(std::move(input));
  inputs.pop_back();
  auto share = [](const char* name, double def, graph::Json max, double step) {
    return optional(
        graph::number(name, {.def = def, .min = 0, .max = std::move(max), .step = step}));
  };
  inputs.push_back(share("speed", 1.0, 10.0, 0.1));
  for (const char* name : {"fx", "fy"}) inputs.push_back(share(name, 0.5, 1, 1e-9));
  for (const char* name : {"cx", "cy"}) inputs.push_back(share(name, 0.5, 1, 0.01));
  catalog.add({
      .name = "WanCameraEmbedding",
      .category = "camera",
      .python_module = "comfy_extras.nodes_camera_trajectory",
      .inputs = std::move(inputs),
      .outputs = {{"WAN_CAMERA_EMBEDDING", "camera_embedding"},
                  {"INT", "width"},
                  {"INT", "height"},
                  {"INT", "length"}},
      .newer_schema = true,
      .run = run_camera,
  });
}

}  // namespace distorch::nodes
