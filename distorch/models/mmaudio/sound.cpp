#include "distorch/models/mmaudio/sound.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/patch.h"

namespace distorch::models::mmaudio {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

// --- the decoder

constexpr double kSmallest = 1e-4;   // is added to lengths that are divided by
constexpr double kSiluGain = 0.596;  // of SiLU, on numbers of deviation 1
constexpr double kNewShare = 0.3;    // of what a block adds
constexpr double kLargest = 256.0;   // numbers between blocks are cut there

/// To length 1 (of the mean square) over the other dimensions than the first or, with `dim`, over
/// that one.
Tensor to_length_one(const Tensor& x, at::IntArrayRef dims) {
  std::int64_t count = 1;
  for (auto dim : dims) count *= x.size(dim);
  auto length = at::linalg_vector_norm(x, 2, dims, true, at::kFloat);
  length = length * (1.0 / std::sqrt(static_cast<double>(count))) + kSmallest;
  return x / length.to(x.scalar_type());
}

Tensor activated(const Tensor& x) { return nn::silu(x) / kSiluGain; }

/// Both of the same strength as each of them.
Tensor mixed(const Tensor& x, const Tensor& added) {
  return at::lerp(x, added, kNewShare) / std::hypot(1 - kNewShare, kNewShare);
}

/// x [B, in, L] -> [B, out, L] with a weight that is brought to length 1, whatever is stored.
class EvenConv {
 public:
  EvenConv(const Scope& s, std::int64_t in, std::int64_t out, std::int64_t kernel)
      : weight_(s.weight("weight", {out, in, kernel})), kernel_(kernel) {}
  Tensor operator()(const Tensor& x, const Tensor& gain = {}) const {
    auto numbers = nn::patched(weight_).to(at::kFloat);
    auto weight = to_length_one(numbers, {1, 2}) /
                  std::sqrt(static_cast<double>(numbers.size(1) * numbers.size(2)));
    if (gain.defined()) weight = weight * gain.to(at::kFloat);
    return at::conv1d(x, weight.to(x.scalar_type()), {}, at::IntArrayRef{1},
                      at::IntArrayRef{kernel_ / 2});
  }
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  weights::Weight weight_;
  std::int64_t kernel_;
};

struct ResBlock {
  ResBlock(const Scope& s, std::int64_t in, std::int64_t out)
      : first(s / "conv1", in, out, 3), second(s / "conv2", out, out, 3) {
    if (in != out) shortcut.emplace(s / "nin_shortcut", in, out, 1);
  }
  Tensor operator()(const Tensor& given) const {
    auto x = to_length_one(given, {1});
    auto y = second(activated(first(activated(x))));
    return mixed(shortcut ? (*shortcut)(x) : x, y);
  }
  EvenConv first, second;
  std::optional<EvenConv> shortcut;
};

/// All frames with each other; queries, keys and values lie number by number beside each other.
struct Attention {
  Attention(const Scope& s, std::int64_t width)
      : qkv(s / "qkv", width, 3 * width, 1), out(s / "proj_out", width, width, 1) {}
  Tensor operator()(const Tensor& x) const {
    auto all = to_length_one(qkv(x).unflatten(1, {x.size(1), 3}), {1});
    auto heads = all.permute({2, 0, 3, 1}).contiguous().unsqueeze(3);  // [3, B, L, 1, C]
    return mixed(x, out(nn::attend(heads[0], heads[1], heads[2]).transpose(1, 2).contiguous()));
  }
  EvenConv qkv, out;
};

struct Middle {
  Middle(const Scope& s, const MelConfig& c)
      : block(s),
        in(s / "decoder" / "conv_in", c.latent, c.width, 3),
        first(s / "decoder" / "mid" / "block_1", c.width, c.width),
        attention(s / "decoder" / "mid" / "attn_1", c.width),
        second(s / "decoder" / "mid" / "block_2", c.width, c.width) {}
  Tensor forward(const Tensor& latent) const {
    return block.run1({latent}, [this](const Tensors& x) {
      auto y = in(x[0].to(in.dtype()).transpose(1, 2).contiguous());
      return second(attention(first(y))).clamp(-kLargest, kLargest);
    });
  }
  weights::Block block;
  EvenConv in;
  ResBlock first;
  Attention attention;
  ResBlock second;
};

struct Level {
  Level(const Scope& s, std::int64_t in, const MelConfig::Level& c) : block(s) {
    for (std::int64_t i = 0; i < c.blocks; ++i)
      blocks.emplace_back(s / "block" / i, i == 0 ? in : c.width, c.width);
    if (c.doubles) doubled.emplace(s / "upsample" / "conv", c.width, c.width, 3);
  }
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      auto y = in[0];
      for (const auto& one : blocks) y = one(y).clamp(-kLargest, kLargest);
      // Every frame twice.
      return doubled ? (*doubled)(y.repeat_interleave(2, 2)) : y;
    });
  }
  weights::Block block;
  std::vector<ResBlock> blocks;
  std::optional<EvenConv> doubled;
};

struct Exit {
  Exit(const Scope& s, std::int64_t width, const MelConfig& c)
      : block(s),
        out(s / "decoder" / "conv_out", width, c.bands, 3),
        gain((s / "decoder").weight("learnable_gain", {})),
        mean(s.weight("data_mean", c.band_shape)),
        deviation(s.weight("data_std", c.band_shape)) {}
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      auto of_bands = [](const weights::Weight& weight) {
        return nn::patched(weight).to(at::kFloat).reshape({1, -1, 1});
      };
      auto y = out(activated(in[0]), nn::patched(gain) + 1).to(at::kFloat);
      return y * of_bands(deviation) + of_bands(mean);
    });
  }
  weights::Block block;
  EvenConv out;
  weights::Weight gain, mean, deviation;
};

// --- the vocoder

/// Twelve taps that keep what half as many samples can carry: [12] float32 on the CPU. Source: the
/// window of Kaiser with the attenuation that BigVGAN asks for.
const Tensor& half_band() {
  static const Tensor taps = [] {
    constexpr std::int64_t count = 12;
    constexpr double cutoff = 0.25, half_width = 0.3;
    const double attenuation = 2.285 * (count / 2 - 1) * std::numbers::pi * 4 * half_width + 7.95;
    const double beta = 0.1102 * (attenuation - 8.7);  // for more than 50 dB
    auto places = at::arange(-count / 2, count / 2, at::TensorOptions(at::kFloat)) + 0.5;
    auto made = at::kaiser_window(count, false, beta, at::TensorOptions(at::kFloat)) *
                at::sinc(places * (2 * cutoff));
    return made / made.sum();
  }();
  return taps;
}

/// A weight that is stored as direction and length, or as it is.
class Split {
 public:
  Split() = default;
  Split(const Scope& s, std::vector<std::int64_t> shape, const VocoderConfig& c) {
    if (!c.split_weights) {
      whole_ = s.weight("weight", std::move(shape));
      return;
    }
    auto place = s / "parametrizations" / "weight";
    length_ = place.weight("original0", {shape[0], 1, 1});
    whole_ = place.weight("original1", std::move(shape));
  }
  Tensor operator()() const {
    auto numbers = nn::patched(whole_);
    if (!length_.declared()) return numbers;
    auto direction = numbers.to(at::kFloat);
    const std::vector<std::int64_t> others = {1, 2};
    auto scale =
        nn::patched(length_).to(at::kFloat) / at::linalg_vector_norm(direction, 2, others, true);
    return (direction * scale).to(numbers.scalar_type());
  }
  at::ScalarType dtype() const { return whole_.dtype(); }

 private:
  weights::Weight length_, whole_;
};

/// x [B, in, L] -> [B, out, L].
class Conv {
 public:
  Conv(const Scope& s, std::int64_t in, std::int64_t out, std::int64_t kernel,
       const VocoderConfig& c, std::int64_t dilation = 1, bool bias = true)
      : weight_(s, {out, in, kernel}, c), kernel_(kernel), dilation_(dilation) {
    if (bias) bias_ = s.weight("bias", {out});
  }
  Tensor operator()(const Tensor& x) const {
    std::optional<Tensor> bias;
    if (bias_.declared()) bias = nn::patched(bias_);
    return at::conv1d(x, weight_(), bias, at::IntArrayRef{1},
                      at::IntArrayRef{(kernel_ - 1) * dilation_ / 2}, at::IntArrayRef{dilation_});
  }
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  Split weight_;
  std::int64_t kernel_, dilation_;
  weights::Weight bias_;
};

/// Snake, x + sin(f x)^2 / b, between twice as many samples, so that what it adds at high
/// frequencies does not come back as low ones. Source: Ziyin et al. 2020.
struct Snake {
  Snake(const Scope& s, std::int64_t width, const VocoderConfig& c) : logarithms(c.logarithms) {
    frequency = (s / "act").weight("alpha", {width});
    if (c.beta) strength = (s / "act").weight("beta", {width});
  }
  Tensor operator()(const Tensor& x) const {
    constexpr double never_zero = 1e-9;
    constexpr std::int64_t before = 5, behind = 6, cut = 15;
    const auto channels = x.size(1);
    auto taps = half_band().to(x.device(), x.scalar_type()).expand({channels, 1, -1});
    auto up = 2 * at::conv_transpose1d(at::replication_pad1d(x, {before, before}), taps, {},
                                       at::IntArrayRef{2}, at::IntArrayRef{0}, at::IntArrayRef{0},
                                       channels);
    up = up.narrow(2, cut, up.size(2) - 2 * cut);
    auto of_channels = [this](const weights::Weight& weight) {
      auto numbers = nn::patched(weight).view({1, -1, 1});
      return logarithms ? numbers.exp() : numbers;
    };
    auto turns = of_channels(frequency);
    auto share = strength.declared() ? of_channels(strength) : turns;
    up = up + at::sin(up * turns).square() / (share + never_zero);
    return at::conv1d(at::replication_pad1d(up, {before, behind}), taps, {}, at::IntArrayRef{2},
                      at::IntArrayRef{0}, at::IntArrayRef{1}, channels);
  }
  bool logarithms;
  weights::Weight frequency, strength;
};

/// Convolutions further and further apart, each with one of neighbours behind it.
struct Periods {
  Periods(const Scope& s, std::int64_t width, const VocoderConfig::Kernel& kernel,
          const VocoderConfig& c) {
    for (std::size_t i = 0; i < kernel.dilations.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      wide.emplace_back(s / "convs1" / at, width, width, kernel.size, c, kernel.dilations[i]);
      near.emplace_back(s / "convs2" / at, width, width, kernel.size, c);
      snakes.emplace_back(s / "activations" / (2 * at), width, c);
      snakes.emplace_back(s / "activations" / (2 * at + 1), width, c);
    }
  }
  Tensor operator()(Tensor x) const {
    for (std::size_t i = 0; i < wide.size(); ++i)
      x = near[i](snakes[2 * i + 1](wide[i](snakes[2 * i](x)))) + x;
    return x;
  }
  std::vector<Conv> wide, near;
  std::vector<Snake> snakes;
};

/// One weights::Block: more samples, then what several kernels see in them, their mean.
struct Step {
  Step(const Scope& root, std::int64_t index, const VocoderConfig& c)
      : block(root), step(c.steps[static_cast<std::size_t>(index)]) {
    const auto in = c.width >> index, out = in / 2;
    auto place = root / "ups" / index / 0;
    weight = Split(place, {in, out, step.kernel}, c);
    bias = place.weight("bias", {out});
    const auto count = static_cast<std::int64_t>(c.kernels.size());
    for (std::int64_t k = 0; k < count; ++k)
      periods.emplace_back(root / "resblocks" / (index * count + k), out,
                           c.kernels[static_cast<std::size_t>(k)], c);
  }
  Tensor forward(const Tensor& x) const {
    throw_if_interrupted();
    return block.run1({x}, [this](const Tensors& in) {
      auto y = at::conv_transpose1d(in[0], weight(), nn::patched(bias), at::IntArrayRef{step.rate},
                                    at::IntArrayRef{(step.kernel - step.rate) / 2});
      Tensor sum;
      for (const auto& one : periods) sum = sum.defined() ? sum + one(y) : one(y);
      return sum / static_cast<double>(periods.size());
    });
  }
  weights::Block block;
  VocoderConfig::Step step;
  Split weight;
  weights::Weight bias;
  std::vector<Periods> periods;
};

/// A list of whole numbers 1..1024 in a config.json.
std::vector<std::int64_t> whole_numbers(const nlohmann::json& list, const std::string& name,
                                        const std::string& path) {
  std::vector<std::int64_t> numbers;
  bool good = list.is_array() && !list.empty();
  for (const auto& entry : list) {
    good = good && entry.is_number_integer() && entry.get<double>() >= 1 &&
           entry.get<double>() <= 1024;
    if (good) numbers.push_back(entry.get<std::int64_t>());
  }
  if (!good)
    throw Error(ErrorKind::Format, path, fmt::format("'{}' is no list of numbers 1 to 1024", name));
  return numbers;
}

/// What a config.json says that shapes do not.
void read_vocoder_json(const std::string& text, const std::string& path, VocoderConfig& c) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) throw Error(ErrorKind::Format, path, "is no JSON object");
  auto entry = [&](const char* name) { return json.value(name, nlohmann::json()); };
  auto flag = [&](const char* name, bool otherwise) {
    auto value = entry(name);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean())
      throw Error(ErrorKind::Format, path, fmt::format("'{}' is neither true nor false", name));
    return value.get<bool>();
  };
  if (auto form = entry("resblock"); form != "1")
    throw Error(ErrorKind::Format, path,
                fmt::format("'resblock' is {}, and vocoders of form \"1\" are known", form.dump()));
  const auto rates = whole_numbers(entry("upsample_rates"), "upsample_rates", path);
  if (rates.size() != c.steps.size())
    throw Error(ErrorKind::Format, path,
                fmt::format("'upsample_rates' names {} steps, and the weights have {}",
                            rates.size(), c.steps.size()));
  for (std::size_t i = 0; i < rates.size(); ++i) {
    c.steps[i].rate = rates[i];
    if (rates[i] > c.steps[i].kernel || (c.steps[i].kernel - rates[i]) % 2 != 0)
      throw Error(ErrorKind::Format, path,
                  fmt::format("'upsample_rates' has {} where the weights reach {} samples",
                              rates[i], c.steps[i].kernel));
  }
  const auto dilations = entry("resblock_dilation_sizes");
  if (!dilations.is_array() || dilations.size() != c.kernels.size())
    throw Error(ErrorKind::Format, path,
                fmt::format("'resblock_dilation_sizes' is no list of {} lists", c.kernels.size()));
  for (std::size_t i = 0; i < c.kernels.size(); ++i)
    c.kernels[i].dilations = whole_numbers(dilations[i], "resblock_dilation_sizes", path);
  c.logarithms = flag("snake_logscale", true);
  c.tanh_at_end = flag("use_tanh_at_final", true);
}

}  // namespace

Checkpoint mel_part(const Checkpoint& file) {
  if (!file.has("decoder.mid.block_1.conv1.weight") || !file.has_prefix("decoder.up.0.block.0."))
    return {};
  auto part = file.part("decoder.", "decoder.");
  for (const char* name : {"data_mean", "data_std"})
    if (const auto* stored = file.find(name)) part.add(name, *stored);
  return part;
}

MelConfig mel_config(const Checkpoint& part) {
  MelConfig c;
  c.width = size_of(part, "decoder.conv_in.weight", 0);
  c.latent = size_of(part, "decoder.conv_in.weight", 1);
  c.bands = size_of(part, "decoder.conv_out.weight", 0);
  c.band_shape = part.shape("data_mean");
  for (int i = 0, count = part.count("decoder.up."); i < count; ++i) {
    const auto place = fmt::format("decoder.up.{}.", i);
    c.levels.push_back({size_of(part, place + "block.0.conv1.weight", 0),
                        part.count(place + "block."), part.has(place + "upsample.conv.weight")});
  }
  if (c10::multiply_integers(c.band_shape) != c.bands)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("'data_mean' holds {} numbers, and 'decoder.conv_out.weight' makes {} "
                            "bands",
                            c10::multiply_integers(c.band_shape), c.bands));
  return c;
}

struct MelDecoder::Parts {
  Parts(const Scope& root, const MelConfig& c) : middle(root.block("decoder.mid"), c) {
    auto width = c.width;
    for (auto i = static_cast<std::int64_t>(c.levels.size()); i-- > 0;) {
      const auto& level = c.levels[static_cast<std::size_t>(i)];
      levels.emplace_back((root / "decoder" / "up" / i).block(), width, level);
      width = level.width;
    }
    out = std::make_unique<const Exit>(root.block("decoder.out"), width, c);
  }
  Middle middle;
  std::vector<Level> levels;
  std::unique_ptr<const Exit> out;
};

MelDecoder::MelDecoder(const MelConfig& config)
    : config_(config), parts_(std::make_unique<const Parts>(Scope(manifest_), config_)) {}

MelDecoder::~MelDecoder() = default;

Tensor MelDecoder::decode(const Tensor& latent) const {
  auto x = parts_->middle.forward(latent);
  for (const auto& level : parts_->levels) x = level.forward(x);
  return parts_->out->forward(x);
}

std::int64_t VocoderConfig::hop() const {
  std::int64_t all = 1;
  for (const auto& step : steps) all *= step.rate;
  return all;
}

Checkpoint vocoder_part(const Checkpoint& file) {
  auto part = file.has_prefix("generator.") ? file.part("generator.") : file;
  if (!part.has_prefix("conv_pre.") || !part.has_prefix("resblocks.0.convs1.0.")) return {};
  const auto all = part.tensors();
  for (const auto& [name, stored] : all)
    for (auto [older, newer] : {std::pair("weight_g", "parametrizations.weight.original0"),
                                std::pair("weight_v", "parametrizations.weight.original1")})
      if (name.ends_with(older))
        part.rename(name, name.substr(0, name.size() - std::string(older).size()) + newer);
  return part;
}

VocoderConfig vocoder_config(const Checkpoint& part, const std::string& json,
                             const std::string& path) {
  VocoderConfig c;
  c.split_weights = !part.has("conv_pre.weight");
  const std::string weight = c.split_weights ? "parametrizations.weight.original1" : "weight";
  c.width = size_of(part, "conv_pre." + weight, 0);
  c.bands = size_of(part, "conv_pre." + weight, 1);
  c.beta = part.has("activation_post.act.beta");
  c.bias_at_end = part.has("conv_post.bias");
  for (int i = 0, count = part.count("ups."); i < count; ++i) {
    const auto name = fmt::format("ups.{}.0.{}", i, weight);
    const auto kernel = size_of(part, name, 2);
    if (kernel < 2)
      throw Error(ErrorKind::Shape, part.path(), fmt::format("'{}' reaches a single sample", name));
    c.steps.push_back({kernel / 2, kernel});
  }
  const auto kernels =
      c.steps.empty() ? 0 : part.count("resblocks.") / static_cast<int>(c.steps.size());
  for (int i = 0; i < kernels; ++i)
    c.kernels.push_back({size_of(part, fmt::format("resblocks.{}.convs1.0.{}", i, weight), 2)});
  if (c.kernels.empty() || c.width % (std::int64_t{1} << c.steps.size()) != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a vocoder of width {} with {} steps ('ups.') and {} blocks "
                            "('resblocks.'), which do not go together",
                            c.width, c.steps.size(), part.count("resblocks.")));
  if (!json.empty()) read_vocoder_json(json, path, c);
  return c;
}

struct Vocoder::Parts {
  Parts(const Scope& root, const VocoderConfig& c)
      : in_place(root.block("conv_pre")),
        in_block(in_place),
        in(in_place / "conv_pre", c.bands, c.width, 7, c) {
    for (std::size_t i = 0; i < c.steps.size(); ++i)
      steps.emplace_back(root.block(fmt::format("ups.{}", i)), static_cast<std::int64_t>(i), c);
    auto place = root.block("conv_post");
    const auto width = c.width >> c.steps.size();
    out_block = weights::Block(place);
    snake.emplace(place / "activation_post", width, c);
    out.emplace(place / "conv_post", width, 1, 7, c, 1, c.bias_at_end);
  }
  Scope in_place;
  weights::Block in_block;
  Conv in;
  std::vector<Step> steps;
  weights::Block out_block;
  std::optional<Snake> snake;
  std::optional<Conv> out;
};

Vocoder::Vocoder(const VocoderConfig& config)
    : config_(config), parts_(std::make_unique<const Parts>(Scope(manifest_), config_)) {}

Vocoder::~Vocoder() = default;

Tensor Vocoder::sound(const Tensor& mel) const {
  auto x = parts_->in_block.run1(
      {mel}, [this](const Tensors& in) { return parts_->in(in[0].to(parts_->in.dtype())); });
  for (const auto& step : parts_->steps) x = step.forward(x);
  return parts_->out_block.run1({x}, [this](const Tensors& in) {
    auto made = (*parts_->out)((*parts_->snake)(in[0])).to(at::kFloat);
    return config_.tanh_at_end ? made.tanh() : made.clamp(-1, 1);
  });
}

}  // namespace distorch::models::mmaudio
