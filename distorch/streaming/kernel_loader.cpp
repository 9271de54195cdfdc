#include "distorch/streaming/kernel_loader.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/device/streams.h"

namespace distorch::streaming {

const char* name_of(KernelFamily kind) {
  switch (kind) {
    case KernelFamily::Product: return "matrix product";
    case KernelFamily::Attention: return "attention";
    case KernelFamily::LayerNorm: return "layer norm";
    case KernelFamily::GroupNorm: return "group norm";
    case KernelFamily::Convolution2d: return "convolution";
    case KernelFamily::Convolution3d: return "convolution of frames";
    case KernelFamily::Elementwise: return "elementwise";
  }
  return "";
}

std::vector<KernelUse> first_kernels() {
  std::vector<KernelUse> uses;
  for (auto kind : {KernelFamily::Product, KernelFamily::Elementwise, KernelFamily::LayerNorm,
                    KernelFamily::Convolution2d})
    uses.push_back({kind, at::kHalf});
  return uses;
}

std::vector<KernelUse> kernels_of(StreamedModel& model) {
  constexpr std::size_t matrix = 2, picture = 4, video = 5;
  // Wider convolutions use the code of these (of SD 1.5's UNet 9 of 23 kinds of convolutions are left,
  // which take 0.16 s; what remains to be loaded is 14 ms for one shape, H200).
  constexpr std::int64_t widest = 640;
  std::set<std::size_t> ranks;
  std::vector<std::array<std::int64_t, 3>> convolutions;
  for (const auto& weight : model.manifest().weights()) {
    ranks.insert(weight.shape.size());
    if (weight.shape.size() != picture || weight.shape[2] != weight.shape[3]) continue;
    const std::array<std::int64_t, 3> shape = {std::min(widest, weight.shape[0]),
                                               std::min(widest, weight.shape[1]), weight.shape[2]};
    if (std::find(convolutions.begin(), convolutions.end(), shape) == convolutions.end())
      convolutions.push_back(shape);
  }
  const auto dtype = model.options().dtype;
  std::vector<KernelUse> uses;
  const auto add = [&](KernelFamily kind) { uses.push_back({kind, dtype}); };
  if (ranks.count(matrix)) add(KernelFamily::Product);
  add(KernelFamily::Elementwise);
  if (ranks.count(picture)) add(KernelFamily::GroupNorm);
  for (const auto& shape : convolutions)
    uses.push_back({KernelFamily::Convolution2d, dtype, shape});
  if (ranks.count(video)) add(KernelFamily::Convolution3d);
  if (ranks.count(matrix)) add(KernelFamily::LayerNorm), add(KernelFamily::Attention);
  return uses;
}

void run_once(c10::Device device, const KernelUse& use) {
  constexpr std::int64_t side = 64, channels = 64, groups = 32, cells = 8;
  c10::InferenceMode inference;
  const auto options = at::TensorOptions().device(device).dtype(use.dtype);
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, options); };
  const auto last = [](const at::Tensor& x) {
    return x.contiguous(at::MemoryFormat::ChannelsLast);
  };
  switch (use.kind) {
    case KernelFamily::Product:
      at::linear(zeros({side, side}), zeros({side, side}), zeros({side}));
      break;
    case KernelFamily::Attention: {
      const auto tokens = zeros({1, 1, side, side});
      at::scaled_dot_product_attention(tokens, tokens, tokens);
      break;
    }
    case KernelFamily::LayerNorm: at::layer_norm(zeros({side, side}), {side}); break;
    case KernelFamily::GroupNorm: at::group_norm(zeros({1, channels, cells, cells}), groups); break;
    case KernelFamily::Convolution2d: {
      // As the layers have them: channels last, two pictures of a small side.
      constexpr std::int64_t pictures = 2, small = 32;
      const auto [out, in, kernel] = use.shape;
      at::conv2d(last(zeros({pictures, in, small, small})), last(zeros({out, in, kernel, kernel})),
                 {}, 1, kernel / 2);
      break;
    }
    case KernelFamily::Convolution3d:
      at::conv3d(zeros({1, channels, 3, cells, cells}), zeros({channels, channels, 3, 3, 3}), {}, 1,
                 1);
      break;
    case KernelFamily::Elementwise: {
      const auto x = zeros({side, side});
      at::cat({at::silu(x) * x + x, at::gelu(x)}).to(at::kFloat);
      break;
    }
  }
  device::synchronize(device::current_stream(device));
}

namespace {

/// Kinds of one number come out of one library and wait for each other.
int lane_of(KernelFamily kind) {
  switch (kind) {
    case KernelFamily::Product: return 0;
    case KernelFamily::Convolution2d:
    case KernelFamily::Convolution3d: return 1;
    case KernelFamily::Attention: return 2;
    default: return 3;
  }
}

}  // namespace

void KernelLoader::load(c10::Device device, const KernelUse& use, const Run& run) const {
  try {
    run(device, use);
  } catch (const std::exception& error) {
    log::info("{}: its {} is not loaded ahead: {}", device::name_of(device), name_of(use.kind),
              error.what());
  } catch (...) {
    log::info("{}: its {} is not loaded ahead", device::name_of(device), name_of(use.kind));
  }
}

void KernelLoader::start(c10::Device device, const std::vector<KernelUse>& uses) {
  std::lock_guard lock(mutex_);
  if (!device.is_cuda() && !every_device_) return;
  for (const auto& use : uses) {
    if (!asked_.emplace(device::name_of(device), use).second) continue;
    auto& lane = lanes_[lane_of(use.kind)];
    if (!lane.worker) lane.worker = std::make_unique<Worker>();
    lane.last = lane.worker->add([this, device, use, run = run_] { load(device, use, run); });
  }
}

void KernelLoader::wait() {
  std::vector<std::shared_future<void>> last;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [number, lane] : lanes_) last.push_back(lane.last);
  }
  for (const auto& one : last) one.wait();
}

void KernelLoader::run_with(Run run, bool every_device) {
  wait();
  std::lock_guard lock(mutex_);
  run_ = std::move(run);
  every_device_ = every_device;
  asked_.clear();
}

KernelLoader& kernel_loader() {
  // Torch's settings must outlive the threads that look at them, which end with the loader.
  at::globalContext();
  static KernelLoader loader;
  return loader;
}

}  // namespace distorch::streaming
