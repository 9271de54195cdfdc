#include "distorch/nodes/audio_encoder.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/video.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::Value;
using models::audio::Wav2Vec2;

namespace {

constexpr double kCrossings = 6, kRollOff = 0.99;

/// Filters, one for each sample of a period of the new rate: [to, 1, 2 · width + from].
Tensor sinc_filters(std::int64_t from, std::int64_t to, std::int64_t width) {
  auto options = at::TensorOptions(at::kFloat);
  auto base = static_cast<double>(std::min(from, to)) * kRollOff;
  auto places = at::arange(-width, width + from, options) / static_cast<double>(from);
  auto phases = at::arange(0, -to, -1, options).view({-1, 1, 1}) / static_cast<double>(to);
  auto t = ((phases + places.view({1, 1, -1})) * base).clamp(-kCrossings, kCrossings);
  auto window = at::cos(t * std::numbers::pi / kCrossings / 2).square();
  t = t * std::numbers::pi;
  auto sinc = at::where(t == 0, at::ones_like(t), at::sin(t) / t);
  return sinc * window * (base / static_cast<double>(from));
}

void run_load(Call& call) {
  auto& models = call.context<ModelCache>();
  auto path = call.context<ModelFolders>().get("audio_encoders", call.text("audio_encoder_name"));
  auto loaded = models.audio_encoder(path, {});
  if (!loaded)
    throw Error(ErrorKind::Format, path.string(),
                "holds no audio encoder that distorch knows (wav2vec 2.0 large or base would fit)");
  call.out(0, Value::of("AUDIO_ENCODER", AudioEncoder{std::move(loaded)}));
}

void run_encode(Call& call) {
  const auto& audio = audio_input(call, "audio");
  if (audio.waveform.dim() != 3 || audio.waveform.size(0) != 1)
    throw Error(ErrorKind::Shape, call.place(),
                "hears one sound at a time, [1, channels, samples], and 'audio' is another batch");
  auto sound = resampled(audio.waveform, audio.rate, Wav2Vec2::kRate);
  AudioStates heard;
  heard.layers = layers_of(call, *call.get<AudioEncoder>("audio_encoder").loaded, sound);
  heard.samples = sound.size(2);
  call.out(0, Value::of("AUDIO_ENCODER_OUTPUT", std::move(heard)));
}

}  // namespace

std::vector<Tensor> layers_of(Call& call, LoadedAudioEncoder& loaded, const Tensor& samples) {
  auto& engine = call.context<streaming::Engine>();
  streaming::RunNeeds needs;
  needs.key = fmt::format("hear {}", samples.size(2));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded.make();
    return streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          fresh->hear(
              at::empty(samples.sizes(), at::TensorOptions().device(device).dtype(at::kFloat)));
        });
  };
  auto use = engine.prepare(loaded.weights, needs);
  const auto& config = loaded.network->config();
  if (engine.plan_only())
    return std::vector<Tensor>(static_cast<std::size_t>(config.layers) + 1,
                               at::zeros({1, Wav2Vec2::states(samples.size(2)), config.width}));
  auto layers =
      loaded.network->hear(samples.to(device::to_torch(loaded.weights->options().compute)));
  for (auto& layer : layers) layer = layer.to(at::kCPU);
  return layers;
}

Tensor resampled(const Tensor& waveform, std::int64_t from, std::int64_t to) {
  if (from < 1 || to < 1)
    throw Error(ErrorKind::Usage, "audio", fmt::format("has {} samples a second", from));
  if (from == to || waveform.size(-1) == 0) return waveform;
  auto common = std::gcd(from, to);
  from /= common, to /= common;
  auto base = static_cast<double>(std::min(from, to)) * kRollOff;
  auto width = static_cast<std::int64_t>(std::ceil(kCrossings * static_cast<double>(from) / base));
  auto samples = waveform.size(-1);
  auto rows = at::constant_pad_nd(waveform.reshape({-1, 1, samples}), {width, width + from});
  std::vector<std::int64_t> stride = {from};
  auto made = at::conv1d(rows, sinc_filters(from, to, width), {}, stride);
  auto sizes = waveform.sizes().vec();
  sizes.back() = (to * samples + from - 1) / from;
  return made.transpose(1, 2).flatten(1).narrow(1, 0, sizes.back()).reshape(sizes);
}

void add_audio_encoder_nodes(graph::Catalog& catalog, App& app) {
  catalog.add({
      .name = "AudioEncoderLoader",
      .category = "loaders",
      .python_module = "comfy_extras.nodes_audio_encoder",
      .inputs = {graph::choice("audio_encoder_name", model_choices(app, "audio_encoders"))},
      .outputs = {"AUDIO_ENCODER"},
      .newer_schema = true,
      .run = run_load,
      .change_key = when_replaced(app, {{"audio_encoders", "audio_encoder_name"}}),
  });
  catalog.add({
      .name = "AudioEncoderEncode",
      .category = "conditioning",
      .python_module = "comfy_extras.nodes_audio_encoder",
      .inputs = {graph::link("audio_encoder", "AUDIO_ENCODER"), graph::link("audio", "AUDIO")},
      .outputs = {"AUDIO_ENCODER_OUTPUT"},
      .newer_schema = true,
      .run = run_encode,
  });
}

}  // namespace distorch::nodes
