#include "distorch/streaming/kernel_loader.h"

#include <ATen/ATen.h>
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

std::vector<KernelUse> kernels_of(StreamedModel& model) {
  constexpr std::size_t matrix = 2, picture = 4, video = 5;
  std::set<std::size_t> ranks;
  for (const auto& weight : model.manifest().weights()) ranks.insert(weight.shape.size());
  const auto dtype = model.options().dtype;
  std::vector<KernelUse> uses;
  const auto add = [&](KernelFamily kind) { uses.push_back({kind, dtype}); };
  if (ranks.count(matrix)) add(KernelFamily::Product);
  add(KernelFamily::Elementwise);
  if (ranks.count(picture)) add(KernelFamily::Convolution2d), add(KernelFamily::GroupNorm);
  if (ranks.count(video)) add(KernelFamily::Convolution3d);
  if (ranks.count(matrix)) add(KernelFamily::LayerNorm), add(KernelFamily::Attention);
  return uses;
}

void run_once(c10::Device device, const KernelUse& use) {
  constexpr std::int64_t side = 64, channels = 64, groups = 32, cells = 8;
  c10::InferenceMode inference;
  const auto options = at::TensorOptions().device(device).dtype(use.dtype);
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, options); };
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
    case KernelFamily::Convolution2d:
      at::conv2d(zeros({1, channels, cells, cells}), zeros({channels, channels, 3, 3}), {}, 1, 1);
      break;
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
    if (!asked_.emplace(device::name_of(device), use.kind, use.dtype).second) continue;
    if (!worker_) worker_ = std::make_unique<Worker>();
    last_ = worker_->add([this, device, use, run = run_] { load(device, use, run); });
  }
}

void KernelLoader::wait() {
  std::shared_future<void> last;
  {
    std::lock_guard lock(mutex_);
    last = last_;
  }
  if (last.valid()) last.wait();
}

void KernelLoader::run_with(Run run, bool every_device) {
  wait();
  std::lock_guard lock(mutex_);
  run_ = std::move(run);
  every_device_ = every_device;
  asked_.clear();
}

KernelLoader& kernel_loader() {
  static KernelLoader loader;
  return loader;
}

}  // namespace distorch::streaming
