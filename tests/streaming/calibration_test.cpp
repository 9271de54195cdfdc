#include "distorch/streaming/calibration.h"

#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "distorch/base/error.h"
#include "distorch/streaming/known_devices.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using doctest::Approx;

namespace {

RigDevice plain_device() {
  RigDevice device;
  device.name = "cuda:0";
  device.tflops = {{"bfloat16", 700}, {"float16", 680}, {"default", 45}};
  device.memory_bytes_per_s = 4e12;
  device.launch_s = 2e-6;
  return device;
}

/// A device with habits that a fit has to find out.
RigDevice hidden_device() {
  auto device = plain_device();
  device.speed(KernelKind::Matmul) = {
      .compute = 0.93, .memory = 0.7, .half_depth = 60, .start_s = 3e-6};
  device.speed(KernelKind::Convolution) = {
      .compute = 0.42, .memory = 0.5, .half_depth = 200, .start_s = 11e-6};
  device.speed(KernelKind::Attention) = {
      .compute = 0.8, .memory = 0.6, .half_depth = 55, .start_s = 6e-6};
  device.speed(KernelKind::Normalization) = {.memory = 0.33, .start_s = 4e-6};
  device.speed(KernelKind::Elementwise) = {.memory = 1.1, .start_s = 1.5e-6};
  return device;
}

KernelWork matmul(const char* dtype, double rows, double inner, double columns) {
  return {KernelKind::Matmul, dtype, 2 * (rows * inner + inner * columns + rows * columns),
          2 * rows * inner * columns, inner};
}
KernelWork attention(const char* dtype, double length, double keys, double heads, double width) {
  return {KernelKind::Attention, dtype, 4 * (length + keys) * heads * width,
          4 * heads * length * keys * width, width};
}
KernelWork convolution(double pixels, double channels, double out) {
  return {KernelKind::Convolution, "float16",
          2 * (pixels * channels + 9 * channels * out + pixels * out),
          2 * pixels * 9 * channels * out, 9 * channels};
}
KernelWork moved(KernelKind kind, const char* dtype, double elements) {
  return {kind, dtype, 4 * elements, 0, 0};
}

/// A transformer block of `tokens` tokens.
std::vector<KernelWork> transformer_block(const char* dtype, double tokens, double width,
                                          double head) {
  auto heads = width / head;
  std::vector<KernelWork> list{
      matmul(dtype, tokens, width, 3 * width), attention(dtype, tokens, tokens, heads, head),
      matmul(dtype, tokens, width, width), matmul(dtype, tokens, width, 4 * width),
      matmul(dtype, tokens, 4 * width, width)};
  for (int i = 0; i < 2; ++i)
    list.push_back(moved(KernelKind::Normalization, dtype, tokens * width));
  for (int i = 0; i < 6; ++i) list.push_back(moved(KernelKind::Elementwise, dtype, tokens * width));
  return list;
}

/// A residual block of a UNet.
std::vector<KernelWork> residual_block(double pixels, double channels, double out) {
  return {moved(KernelKind::Normalization, "float16", pixels * channels),
          moved(KernelKind::Elementwise, "float16", pixels * channels),
          convolution(pixels, channels, out),
          matmul("float16", 2, 1280, out),
          moved(KernelKind::Elementwise, "float16", pixels * out),
          moved(KernelKind::Normalization, "float16", pixels * out),
          moved(KernelKind::Elementwise, "float16", pixels * out),
          convolution(pixels, out, out),
          moved(KernelKind::Elementwise, "float16", pixels * out)};
}

/// What a run of those blocks takes on `device`, every time off by about `noise` of itself.
StepTarget measured(const std::string& name, const RigDevice& device,
                    const std::vector<std::vector<KernelWork>>& blocks, double noise,
                    std::mt19937& random) {
  std::normal_distribution<double> off(1, noise);
  RunOperations operations{blocks, {moved(KernelKind::Elementwise, "default", 1e6)}};
  RunTimes times{{}, seconds_of(device, operations.outside[0])};
  std::vector<std::string> names;
  double total = times.outside_s;
  for (const auto& block : blocks) {
    double seconds = 0;
    for (const auto& work : block) seconds += seconds_of(device, work);
    total += seconds;
    times.blocks.push_back(seconds * off(random));
    names.push_back("block." + std::to_string(names.size()));
  }
  return make_target(name, total * off(random), operations, times, names);
}

StepTarget transformer(const RigDevice& device, double tokens, double noise, std::mt19937& random) {
  std::vector<std::vector<KernelWork>> blocks(20, transformer_block("bfloat16", tokens, 3072, 128));
  return measured("transformer " + std::to_string(int(tokens)), device, blocks, noise, random);
}

StepTarget unet(const RigDevice& device, double side, double noise, std::mt19937& random) {
  std::vector<std::vector<KernelWork>> blocks;
  for (double level : {1.0, 2.0, 4.0, 4.0, 2.0, 1.0}) {
    const double pixels = 2 * side / level * side / level, channels = 320 * level;
    blocks.push_back(residual_block(pixels, channels, channels));
    blocks.push_back(transformer_block("float16", pixels, channels, channels / 8));
    blocks.push_back(residual_block(pixels, 2 * channels, channels));
  }
  return measured("unet " + std::to_string(int(side)), device, blocks, noise, random);
}

}  // namespace

TEST_CASE("calibration: a fit to noisy times predicts steps within 3 %, also those it never saw") {
  const auto hidden = hidden_device();
  for (unsigned seed : {1u, 2u, 3u}) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    std::vector<StepTarget> seen, unseen;
    for (double tokens : {1536.0, 4608.0, 16896.0})
      seen.push_back(transformer(hidden, tokens, 0.02, random));
    for (double side : {64.0, 128.0}) seen.push_back(unet(hidden, side, 0.02, random));
    unseen.push_back(transformer(hidden, 2560, 0, random));
    unseen.push_back(unet(hidden, 96, 0, random));
    auto device = plain_device();
    CHECK(error_of(device, seen).steps > 0.2);
    const auto error = calibrate(device, seen);
    CHECK(error.steps < 0.03);
    CHECK(error.blocks < 0.06);
    CHECK(error.steps == error_of(device, seen).steps);
    CHECK(error_of(device, unseen).steps < 0.03);
    // What was measured before the fit stays.
    CHECK(device.tflops == plain_device().tflops);
    CHECK(device.memory_bytes_per_s == plain_device().memory_bytes_per_s);
  }
}

TEST_CASE("calibration: kinds that no target has stay as they usually are") {
  std::mt19937 random(4);
  const auto hidden = hidden_device();
  std::vector<StepTarget> steps;
  for (double tokens : {300.0, 1536.0, 4608.0, 16896.0})
    steps.push_back(transformer(hidden, tokens, 0, random));
  auto device = plain_device();
  CHECK(calibrate(device, steps).steps < 0.005);
  CHECK(device.speed(KernelKind::Convolution) ==
        typical_kernels()[static_cast<std::size_t>(KernelKind::Convolution)]);
  CHECK(device.speed(KernelKind::Matmul).compute == Approx(0.93).epsilon(0.05));
}

TEST_CASE("calibration: equal blocks become one, and their times add up to the step's") {
  std::mt19937 random(5);
  const auto step = unet(hidden_device(), 64, 0.1, random);
  CHECK(step.blocks.size() == 9);  // three levels of three, each on the way down and up
  double blocks = 0, count = 0;
  for (const auto& block : step.blocks) {
    blocks += block.count * block.seconds;
    count += block.count;
  }
  CHECK(count == 18);
  CHECK(blocks < step.seconds);
  CHECK(blocks > 0.9 * step.seconds);
  CHECK(step.blocks[0].name == "block.0");
  // Of nine operations: the two convolutions are alike, and all that move as many elements.
  CHECK(step.blocks[0].kernels.size() == 4);
}

TEST_CASE("calibration: targets survive their file, and other files are refused by name") {
  std::mt19937 random(6);
  const std::vector<StepTarget> steps{unet(hidden_device(), 64, 0.1, random),
                                      transformer(hidden_device(), 1536, 0.1, random)};
  const auto again =
      targets_from_json(nlohmann::json::parse(to_json(steps).dump()), "targets.json");
  REQUIRE(again.size() == 2);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    CHECK(again[i].name == steps[i].name);
    CHECK(again[i].seconds == steps[i].seconds);
    CHECK((again[i].outside == steps[i].outside));
    REQUIRE(again[i].blocks.size() == steps[i].blocks.size());
    for (std::size_t b = 0; b < steps[i].blocks.size(); ++b) {
      CHECK((again[i].blocks[b].kernels == steps[i].blocks[b].kernels));
      CHECK(again[i].blocks[b].seconds == steps[i].blocks[b].seconds);
      CHECK(again[i].blocks[b].count == steps[i].blocks[b].count);
    }
  }
  auto wrong = to_json(steps);
  wrong[0]["outside"][0][0] = "magic";
  CHECK_THROWS_WITH_AS(
      targets_from_json(wrong, "targets.json"),
      doctest::Contains("targets.json: is not a list of calibration targets: 'magic' is no kind"),
      Error);
  wrong = to_json(steps);
  wrong[1].erase("blocks");
  CHECK_THROWS_AS(targets_from_json(wrong, "targets.json"), Error);
  auto device = plain_device();
  CHECK_THROWS_AS(calibrate(device, {}), Error);
  auto still = steps;
  still[0].seconds = 0;
  CHECK_THROWS_AS(calibrate(device, still), Error);
}

TEST_CASE("calibration: operations of a run, block by block, cost what its profile says") {
  c10::InferenceMode inference;
  toy::Folder folder;
  toy::Model model(3, 64);
  StreamedModel streamed(model.manifest(), folder.write(model), {.name = "toy"});
  toy::Model fresh(3, 64);
  const auto forward = [&](at::Device device) {
    auto x = at::empty({16, 64}, at::TensorOptions().device(device));
    fresh.forward(x + 1);
  };
  const auto operations = operations_of(streamed, fresh.manifest(), forward);
  REQUIRE(operations.blocks.size() == 3);
  CHECK(operations.outside.size() == 1);
  CHECK((operations.blocks[0] == operations.blocks[2]));
  CHECK(operations.blocks[0][0].kind == KernelKind::Matmul);
  CHECK(operations.blocks[0][0].flops == 2.0 * 16 * 64 * 64);
  auto device = hidden_device();
  device.issue_s = 8e-6;
  const auto profile = profile_model(streamed, fresh.manifest(), device, forward);
  double total = seconds_of(device, count_kernels(operations.outside));
  for (std::size_t i = 0; i < 3; ++i) {
    const auto block = seconds_of(device, count_kernels(operations.blocks[i]));
    CHECK(profile.seconds[i] == Approx(block));
    total += block;
  }
  CHECK(profile.total_s == Approx(total));
  CHECK(profile.operations == 1 + 3 * static_cast<std::int64_t>(operations.blocks[0].size()));
  CHECK(profile.issue_s == Approx(8e-6 * static_cast<double>(profile.operations)));
}

TEST_CASE(
    "calibration: a slow host stretches a profile to what issuing takes, a fast one does not") {
  Profile profile;
  profile.seconds = {1, 2};
  profile.total_s = 4;  // one second between blocks
  profile.issue_s = 3;
  CHECK(host_bound(profile).seconds == profile.seconds);
  CHECK(host_bound(profile).total_s == 4);
  profile.issue_s = 8;
  CHECK(host_bound(profile).seconds == std::vector<double>{2, 4});
  CHECK(host_bound(profile).total_s == 8);
}
