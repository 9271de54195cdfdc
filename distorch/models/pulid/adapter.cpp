#include "distorch/models/pulid/adapter.h"

#include <fmt/format.h>

#include <cstdlib>
#include <set>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"

namespace distorch::models::pulid {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr const char* kKey = "to_k_ip";
constexpr const char* kValue = "to_v_ip";
constexpr double kSlope = 0.01;  // of what is below 0

std::string layer_name(std::int64_t number, const char* what) {
  return fmt::format("ip_adapter.{}.{}.weight", number, what);
}

}  // namespace

/// Three layers with norms between them.
class Adapter::Mapping {
 public:
  struct Widths {
    std::int64_t in, first, second, out;
  };
  Mapping(const Scope& s, const Widths& w)
      : first_(s / 0, w.in, w.first),
        norm1_(s / 1, w.first),
        second_(s / 3, w.first, w.second),
        norm2_(s / 4, w.second),
        third_(s / 6, w.second, w.out) {}
  Tensor operator()(const Tensor& x) const {
    auto h = at::leaky_relu(norm1_(first_(x.to(first_.dtype()))), kSlope);
    return third_(at::leaky_relu(norm2_(second_(h)), kSlope));
  }

 private:
  nn::Linear first_;
  nn::LayerNorm norm1_;
  nn::Linear second_;
  nn::LayerNorm norm2_;
  nn::Linear third_;
};

struct Adapter::Heads {
  Heads(const Scope& s, const AdapterConfig& c, std::int64_t channels)
      : block(s),
        key(s / kKey, c.context, channels, /*bias=*/false),
        value(s / kValue, c.context, channels, /*bias=*/false) {}
  weights::Block block;
  nn::Linear key, value;
};

Adapter::Adapter(const AdapterConfig& config) : config_(config) {
  const auto& c = config_;
  const auto root = (Scope(manifest_) / "image_proj").block();
  block_ = weights::Block(root);
  body_ = std::make_unique<const Mapping>(
      root / "body", Mapping::Widths{c.identity, c.first, c.second, c.context * c.tokens});
  const Mapping::Widths widths = {c.width, c.width, c.width, c.context};
  for (std::int64_t i = 0; i < c.looks; ++i) {
    firsts_.push_back(std::make_unique<const Mapping>(root / fmt::format("mapping_{}", i), widths));
    others_.push_back(
        std::make_unique<const Mapping>(root / fmt::format("mapping_patch_{}", i), widths));
  }
  for (const auto& layer : c.layers)
    heads_.push_back(std::make_unique<const Heads>(
        (Scope(manifest_) / "ip_adapter" / layer.number).block(), c, layer.channels));
}

Adapter::~Adapter() = default;

Tensor Adapter::tokens_of(const Tensor& faces) const {
  const auto& c = config_;
  const auto states = faces.size(1) - c.identity;
  if (states < 2 * c.looks * c.width || states % (c.looks * c.width) != 0)
    throw Error(ErrorKind::Shape, "PuLID",
                fmt::format("takes {} numbers of a face and tokens of width {} of {} layers of its "
                            "picture encoder, got {} numbers in all: the encoders are other ones",
                            c.identity, c.width, c.looks, faces.size(1)));
  return block_.run1({faces}, [&](const Tensors& in) {
    const auto n = in[0].size(0);
    auto seen = in[0].narrow(1, c.identity, states).view({n, c.looks, -1, c.width});
    std::vector<Tensor> tokens = {
        (*body_)(in[0].narrow(1, 0, c.identity)).view({n, c.tokens, c.context})};
    for (std::int64_t i = 0; i < c.looks; ++i) {
      const auto index = static_cast<std::size_t>(i);
      auto layer = seen.select(1, i);
      tokens.push_back((*firsts_[index])(layer.narrow(1, 0, 1)) +
                       (*others_[index])(layer.narrow(1, 1, layer.size(1) - 1)).mean(1, true));
    }
    return at::cat(tokens, 1).to(at::kFloat);
  });
}

Tensor Adapter::heads_of(const Tensor& tokens) const {
  std::vector<Tensor> all;
  for (const auto& heads : heads_) {
    auto both = heads->block.run({tokens}, [&](const Tensors& in) -> Tensors {
      auto x = in[0].to(heads->key.dtype());
      return {heads->key(x).to(at::kFloat), heads->value(x).to(at::kFloat)};
    });
    all.insert(all.end(), both.begin(), both.end());
  }
  return at::cat(all, -1);
}

Checkpoint adapter_part(const Checkpoint& file) {
  if (!file.has("image_proj.body.0.weight") || !file.has_prefix("ip_adapter."))
    throw Error(ErrorKind::Format, file.path(),
                "holds no PuLID for SDXL, which has 'image_proj.body.0.weight' and "
                "'ip_adapter.1.to_k_ip.weight' (ip-adapter_pulid_sdxl_fp16.safetensors)");
  Checkpoint part = file.part("image_proj.", "image_proj.");
  const auto heads = file.part("ip_adapter.", "ip_adapter.");
  for (const auto& [name, stored] : heads.tensors()) part.add(name, stored);
  return part;
}

AdapterConfig adapter_config(const Checkpoint& part) {
  AdapterConfig c;
  c.identity = size_of(part, "image_proj.body.0.weight", 1);
  c.first = size_of(part, "image_proj.body.0.weight", 0);
  c.second = size_of(part, "image_proj.body.3.weight", 0);
  c.width = size_of(part, "image_proj.mapping_0.0.weight", 1);
  c.context = size_of(part, "image_proj.mapping_0.6.weight", 0);
  const auto rows = size_of(part, "image_proj.body.6.weight", 0);
  if (rows % c.context != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("'image_proj.body.6.weight' has {} rows, which is no number of tokens "
                            "of width {}",
                            rows, c.context));
  c.tokens = rows / c.context;
  c.looks = 0;
  while (part.has(fmt::format("image_proj.mapping_{}.0.weight", c.looks))) ++c.looks;
  std::set<std::int64_t> numbers;
  constexpr std::string_view before = "ip_adapter.";
  for (const auto& [name, stored] : part.tensors())
    if (name.starts_with(before)) numbers.insert(std::atol(name.c_str() + before.size()));
  for (auto number : numbers)
    c.layers.push_back({number, size_of(part, layer_name(number, kKey), 0)});
  return c;
}

}  // namespace distorch::models::pulid
