#include "distorch/models/flux/entry.h"

#include "distorch/models/whole_patches.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::flux {

using at::Tensor;
using weights::Scope;

namespace {

constexpr std::int64_t kLevelWidth = 256;  // of the embedding of a noise level
constexpr double kLevelSteps = 1000;       // by which a level 0 .. 1 is multiplied

std::int64_t in_tokens(std::int64_t cells, std::int64_t patch) {
  return (cells + patch - 1) / patch;
}
/// An offset in cells as one in tokens, halves up.
std::int64_t offset_in_tokens(std::int64_t cells, std::int64_t patch) {
  return (cells + patch / 2) / patch;
}

Tensor embedded(const Tensor& level, at::ScalarType dtype) {
  return nn::timestep_embedding(level * kLevelSteps, kLevelWidth).to(dtype);
}

/// Where the tokens of one picture lie.
struct Place {
  double index = 0;
  std::int64_t top = 0, left = 0, height = 0, width = 0;  // in tokens
};

/// [height · width, axes]: index, row, column, and 0 on all further axes.
Tensor positions_of(const Place& place, std::size_t axes, at::Device device) {
  auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  auto rows = at::arange(place.top, place.top + place.height, options);
  auto columns = at::arange(place.left, place.left + place.width, options);
  std::vector<Tensor> parts{at::full({place.height, place.width}, place.index, options),
                            rows.unsqueeze(1).expand({place.height, place.width}),
                            columns.unsqueeze(0).expand({place.height, place.width})};
  while (parts.size() < axes) parts.push_back(at::zeros({place.height, place.width}, options));
  return at::stack(parts, -1).flatten(0, 1);
}

/// The place of every reference picture.
class Arrangement {
 public:
  Arrangement(const Config& config, ReferenceMethod method, at::IntArrayRef picture)
      : config_(config), method_(method), picture_(picture) {}

  Place next(at::IntArrayRef reference) {
    auto height = reference[2], width = reference[3];
    std::int64_t top = 0, left = 0;
    double index = 1;
    auto whole = [&](std::int64_t cells) {
      return in_tokens(cells, config_.patch) * config_.patch;
    };
    if (method_ == ReferenceMethod::Index || method_ == ReferenceMethod::IndexTimestepZero) {
      index = index_ += config_.reference_step;
    } else if (method_ == ReferenceMethod::Uxo) {
      index = 0;
      top = whole(picture_[2]) + height_;
      left = whole(picture_[3]) + width_;
      height_ += height;
      width_ += width;
    } else {
      (height + height_ > width + width_ ? left : top) =
          height + height_ > width + width_ ? width_ : height_;
      height_ = std::max(height_, height + top);
      width_ = std::max(width_, width + left);
    }
    return {index, offset_in_tokens(top, config_.patch), offset_in_tokens(left, config_.patch),
            in_tokens(height, config_.patch), in_tokens(width, config_.patch)};
  }

 private:
  const Config& config_;
  ReferenceMethod method_;
  at::IntArrayRef picture_;
  std::int64_t height_ = 0, width_ = 0;  // of what was placed so far, in cells
  double index_ = 0;
};

}  // namespace

Patches2d cut(const Tensor& x, std::int64_t patch) {
  auto height = in_tokens(x.size(2), patch), width = in_tokens(x.size(3), patch);
  auto cells = whole_patches(x, patch).reshape({x.size(0), x.size(1), height, patch, width, patch});
  return {cells.permute({0, 2, 4, 1, 3, 5}).reshape({x.size(0), height * width, -1}), height,
          width};
}

Tensor assemble(const Tensor& tokens, std::int64_t patch, at::IntArrayRef like) {
  auto height = in_tokens(like[2], patch), width = in_tokens(like[3], patch);
  auto cells = tokens.reshape({tokens.size(0), height, width, -1, patch, patch});
  auto whole = cells.permute({0, 3, 1, 4, 2, 5})
                   .reshape({tokens.size(0), -1, height * patch, width * patch});
  return whole.narrow(2, 0, like[2]).narrow(3, 0, like[3]).contiguous();
}

Entry::Embedder::Embedder(const Scope& s, std::int64_t in, const Config& c, bool bias)
    : in_layer(s / "in_layer", in, c.hidden, bias),
      out_layer(s / "out_layer", c.hidden, c.hidden, bias) {}

Tensor Entry::Embedder::operator()(const Tensor& x) const {
  return out_layer(nn::silu_over(in_layer(x)));
}

Entry::Entry(const Scope& s, const Config& c)
    : config_(c),
      img_in_(s / "img_in", c.in_channels * c.patch * c.patch, c.hidden, c.bias),
      txt_in_(s / "txt_in", c.context_width, c.hidden, c.bias),
      time_in_(s / "time_in", kLevelWidth, c, c.bias) {
  if (c.vector_width > 0) vector_in_.emplace(s / "vector_in", c.vector_width, c, true);
  if (c.guidance) guidance_in_.emplace(s / "guidance_in", kLevelWidth, c, c.bias);
  if (!c.shared_modulation) return;
  img_mod_.emplace(s / "double_stream_modulation_img", c, 6, false);
  txt_mod_.emplace(s / "double_stream_modulation_txt", c, 6, false);
  single_mod_.emplace(s / "single_stream_modulation", c, 3, false);
}

Tensor Entry::level(const Tensor& timestep, const Tensor& vector, const Tensor& guidance) const {
  auto dtype = img_in_.dtype();
  auto vec = time_in_(embedded(timestep, dtype));
  if (guidance_in_ && guidance.defined()) vec.add_((*guidance_in_)(embedded(guidance, dtype)));
  if (vector_in_) {
    auto pooled = vector.defined()
                      ? vector.to(dtype)
                      : at::zeros({timestep.size(0), config_.vector_width}, vec.options());
    vec.add_((*vector_in_)(pooled));
  }
  return vec.unsqueeze(1);
}

/// [1, Lt + Li, axes].
Tensor Entry::positions(const EntryInputs& in, std::int64_t text) const {
  auto axes = config_.axes.size();
  auto device = in.x.device();
  auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  auto words = at::zeros({text, static_cast<std::int64_t>(axes)}, options);
  if (config_.text_axis >= 0)
    words.select(1, config_.text_axis).copy_(at::arange(0, text, options));
  auto size = [&](int dim) { return in_tokens(in.x.size(dim), config_.patch); };
  std::vector<Tensor> all{words, positions_of({0, 0, 0, size(2), size(3)}, axes, device)};
  Arrangement arrangement(config_, in.method, in.x.sizes());
  for (const auto& reference : in.references)
    all.push_back(positions_of(arrangement.next(reference.sizes()), axes, device));
  return at::cat(all).unsqueeze(0);
}

Entry::Result Entry::forward(const EntryInputs& in) const {
  auto dtype = img_in_.dtype();
  Result r;
  {
    auto picture = in.concat.defined() ? at::cat({in.x, in.concat}, 1) : in.x;
    std::vector<Tensor> tokens{cut(picture, config_.patch).tokens};
    for (const auto& reference : in.references)
      tokens.push_back(cut(reference, config_.patch).tokens);
    r.img = img_in_((tokens.size() == 1 ? tokens[0] : at::cat(tokens, 1)).to(dtype));
  }
  r.txt = txt_in_(in.context.to(dtype));
  r.vec = level(in.timestep, in.vector, in.guidance);
  if (in.method == ReferenceMethod::IndexTimestepZero && !in.references.empty())
    r.vec = at::cat({r.vec, level(at::zeros_like(in.timestep), in.vector, in.guidance)}, 1);
  auto first = r.vec.narrow(1, 0, 1);
  r.img_mod = img_mod_ ? (*img_mod_)(r.vec) : r.vec;
  r.txt_mod = txt_mod_ ? (*txt_mod_)(first) : first;
  r.single_mod = single_mod_ ? (*single_mod_)(r.vec) : r.vec;
  r.rope = nn::rope_table(positions(in, r.txt.size(1)), config_.axes, config_.theta);
  return r;
}

}  // namespace distorch::models::flux
