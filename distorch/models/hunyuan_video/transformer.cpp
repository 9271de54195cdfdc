#include "distorch/models/hunyuan_video/transformer.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/flux/block.h"
#include "distorch/models/hunyuan_video/entrance.h"
#include "distorch/models/whole_patches.h"

namespace distorch::models::hunyuan_video {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

InputSpecs specs_of(const Config& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), any = Extent::any();
  const auto latent = Extent::number(c.out_channels);
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = Kind::NoiseShape,
       .shape = {batch, latent, Extent::cells()},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "timestep", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), Extent::number(c.text_width)}},
      {.name = "attention_mask",
       .meaning = "mask of text tokens",
       .shape = {batch, Extent::tokens()},
       .optional = true}};
  if (c.vector_width > 0)
    specs.push_back({.name = "vector",
                     .meaning = "pooled conditioning",
                     .shape = {batch, Extent::number(c.vector_width)},
                     .optional = true});
  if (c.guidance)
    specs.push_back(
        {.name = "guidance", .meaning = "guidance", .shape = {batch}, .optional = true});
  if (c.beside() > 0)
    specs.push_back({.name = "concat",
                     .meaning = "what is given beside the latent",
                     .kind = Kind::NoiseShape,
                     .shape = {batch, Extent::number(c.beside()), Extent::cells()}});
  specs.push_back({.name = "given_frame",
                   .meaning = "noise level of a given frame",
                   .shape = {batch},
                   .optional = true});
  if (c.beside() == 0)
    specs.push_back({.name = "reference",
                     .meaning = "reference picture",
                     .shape = {batch, latent, any, any, any},
                     .optional = true});
  return specs;
}

std::int64_t in_tokens(std::int64_t cells) { return (cells + kPatch - 1) / kPatch; }

/// [T · rows · columns, 3]: frame, row and column of the tokens of a latent [B, C, T, h, w].
Tensor positions_of(const Tensor& latent) {
  auto options = at::TensorOptions().dtype(at::kFloat).device(latent.device());
  std::vector<std::int64_t> shape = {latent.size(2), in_tokens(latent.size(3)),
                                     in_tokens(latent.size(4))};
  auto along = [&](std::size_t axis) {
    std::vector<std::int64_t> view(3, 1);
    view[axis] = shape[axis];
    return at::arange(shape[axis], options).view(view).expand(shape);
  };
  return at::stack({along(0), along(1), along(2)}, -1).flatten(0, 2);
}

/// tokens [B, T · rows · columns, C · 4], the cells of a channel side by side -> a latent of the
/// sizes of `like`.
Tensor to_latent(const Tensor& tokens, at::IntArrayRef like) {
  auto frames = like[2], rows = in_tokens(like[3]), columns = in_tokens(like[4]);
  auto cells = tokens.reshape({tokens.size(0), frames, rows, columns, -1, kPatch, kPatch});
  return cells.permute({0, 4, 1, 2, 5, 3, 6})
      .reshape({tokens.size(0), -1, frames, rows * kPatch, columns * kPatch})
      .narrow(3, 0, like[3])
      .narrow(4, 0, like[4])
      .contiguous();
}

/// What the video's tokens are made of, and where they lie. Frames that are given stand behind all
/// others, as FLUX's blocks take tokens with a modulation of their own.
struct Video {
  Tensor tokens, positions;    // [B, Li, channels · 4], [Li, 3]
  std::int64_t reference = 0;  // tokens at the start
  std::int64_t made = 0, given = 0;
};

Video video_of(const Inputs& inputs) {
  const auto& x = inputs["x"];
  const auto& beside = inputs["concat"];
  auto all =
      patches_as_tokens(beside.defined() ? at::cat({x, beside.to(x.scalar_type())}, 1) : x, kPatch);
  auto places = positions_of(x);
  Video video;
  video.given = inputs["given_frame"].defined() ? all.size(1) / x.size(2) : 0;
  video.made = all.size(1) - video.given;
  Tensors tokens = {all.narrow(1, video.given, video.made), all.narrow(1, 0, video.given)};
  Tensors positions = {places.narrow(0, video.given, video.made), places.narrow(0, 0, video.given)};
  if (const auto& picture = inputs["reference"]; picture.defined()) {
    tokens.insert(tokens.begin(), patches_as_tokens(picture.to(x.scalar_type()), kPatch));
    video.reference = tokens.front().size(1);
    auto beside_it = positions_of(picture);
    beside_it.select(1, 0).fill_(-1);
    beside_it.select(1, 2).add_(static_cast<double>(in_tokens(x.size(4))));
    positions.insert(positions.begin(), beside_it);
  }
  video.tokens = at::cat(tokens, 1);
  video.positions = at::cat(positions);
  return video;
}

/// [B, 1, 1, L + behind] to be added to scores, of a mask [B, L] (1 = counts).
Tensor score_mask(const Tensor& mask, std::int64_t behind, at::ScalarType dtype) {
  if (!mask.defined()) return {};
  // Far below every score, and a number in every type.
  constexpr double never = -60000;
  auto scores = ((1.0 - mask.to(at::kFloat)) * never).to(dtype);
  return at::constant_pad_nd(scores, {0, behind}).view({mask.size(0), 1, 1, -1});
}

template <class Layers>
struct Part {
  Part(const Scope& scope, const flux::Config& config)
      : name(scope.prefix()), block(scope), layers(scope, config) {}
  std::string name;
  weights::Block block;
  Layers layers;
};

}  // namespace

struct Transformer::Parts {
  Parts(const Scope& root, const Config& c) : in(root.block("in"), c) {
    auto refiner = root / "txt_in" / "individual_token_refiner" / "blocks";
    for (std::int64_t i = 0; i < c.refiner_depth; ++i)
      refiners.emplace_back((refiner / i).block(), c);
    auto blocks = c.blocks();
    for (std::int64_t i = 0; i < c.depth; ++i)
      doubles.emplace_back((root / "double_blocks" / i).block(), blocks);
    for (std::int64_t i = 0; i < c.single_depth; ++i)
      singles.emplace_back((root / "single_blocks" / i).block(), blocks);
    last.emplace((root / "final_layer").block(), blocks);
  }

  Entrance in;
  std::vector<RefinerBlock> refiners;
  std::vector<Part<flux::DoubleBlock>> doubles;
  std::vector<Part<flux::SingleBlock>> singles;
  std::optional<Part<flux::LastLayer>> last;
};

/// One call's way through the layers.
class Transformer::Call {
 public:
  Call(const Transformer& network, const Inputs& inputs)
      : parts_(*network.parts_), config_(network.config_), inputs_(inputs) {}

  Tensor run(const Patches& patches) {
    begin();
    for (const auto& part : parts_.doubles)
      if (patches.skipped.count(part.name) == 0) through(part);
    for (const auto& part : parts_.singles)
      if (patches.skipped.count(part.name) == 0) through(part);
    return finish();
  }

 private:
  void begin() {
    auto video = video_of(inputs_);
    reference_ = video.reference;
    made_ = video.made;
    given_ = video.given;
    auto first = parts_.in.forward({video.tokens, inputs_["timestep"], inputs_["given_frame"],
                                    inputs_["context"], inputs_["vector"], inputs_["guidance"]});
    img_ = std::move(first.img);
    txt_ = std::move(first.txt);
    vec_ = std::move(first.vec);
    const auto& mask = inputs_["attention_mask"];
    auto among_text = score_mask(mask, 0, txt_.scalar_type());
    for (const auto& block : parts_.refiners)
      txt_ = block.forward(txt_, first.refining, among_text);
    text_ = txt_.size(1);
    mask_ = score_mask(mask, img_.size(1), img_.scalar_type());
    auto places = at::cat({at::zeros({text_, 3}, video.positions.options()), video.positions});
    rope_ = nn::rope_table(places.unsqueeze(0), config_.blocks().axes, kTheta);
  }

  void through(const Part<flux::DoubleBlock>& part) {
    auto out = part.block.run(
        {img_, txt_, vec_, rope_.cos, rope_.sin, mask_}, [&](const Tensors& t) -> Tensors {
          auto y = part.layers.forward({t[0], t[1]},
                                       {t[2], t[2].narrow(1, 0, 1), {t[3], t[4]}, given_, t[5]});
          return {y.img, y.txt};
        });
    img_ = std::move(out[0]);
    txt_ = std::move(out[1]);
  }

  /// The first single block takes both streams and puts them together.
  void through(const Part<flux::SingleBlock>& part) {
    auto taken = all_.defined() ? Tensors{all_, {}} : Tensors{txt_, img_};
    img_.reset();
    txt_.reset();
    all_.reset();
    taken.insert(taken.end(), {vec_, rope_.cos, rope_.sin, mask_});
    all_ = part.block.run1(taken, [&](const Tensors& t) {
      auto tokens = t[1].defined() ? at::cat({t[0], t[1]}, 1) : t[0];
      return part.layers.forward(tokens, {t[2], {}, {t[3], t[4]}, given_, t[5]});
    });
  }

  Tensor finish() {
    auto video = all_.defined() ? all_.narrow(1, text_ + reference_, made_ + given_)
                                : img_.narrow(1, reference_, made_ + given_);
    const auto& part = *parts_.last;
    return part.block.run1({video, vec_}, [&](const Tensors& t) {
      auto last = [&](std::int64_t level, std::int64_t first, std::int64_t count) {
        return part.layers.forward(t[0].narrow(1, first, count), t[1].narrow(1, level, 1))
            .to(at::kFloat);
      };
      auto made = last(0, 0, made_);
      auto tokens = given_ > 0 ? at::cat({last(1, made_, given_), made}, 1) : made;
      return to_latent(tokens, inputs_["x"].sizes());
    });
  }

  const Parts& parts_;
  const Config& config_;
  const Inputs& inputs_;
  std::int64_t text_ = 0, reference_ = 0, made_ = 0, given_ = 0;  // tokens
  Tensor img_, txt_, all_, vec_, mask_;
  nn::RopeTable rope_;
};

Transformer::Transformer(const Config& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<const Parts>(Scope(manifest_), config_)) {}

Transformer::~Transformer() = default;

Tensor Transformer::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs, "HunyuanVideo");
  return Call(*this, inputs).run(patches);
}

}  // namespace distorch::models::hunyuan_video
