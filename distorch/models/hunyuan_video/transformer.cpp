#include "distorch/models/hunyuan_video/transformer.h"

#include <fmt/format.h>

#include <numbers>
#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/flux/block.h"
#include "distorch/models/flux/block_parts.h"
#include "distorch/models/hunyuan_video/call_options.h"
#include "distorch/models/hunyuan_video/entrance.h"
#include "distorch/models/hunyuan_video/further_tokens.h"
#include "distorch/models/hunyuan_video/video_attention.h"
#include "distorch/models/reference_cache.h"
#include "distorch/models/whole_patches.h"
#include "distorch/nn/attention.h"

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
  if (c.glyph_width > 0)
    specs.push_back({.name = "glyphs",
                     .meaning = "states of words that the video shows",
                     .shape = {batch, any, Extent::number(c.glyph_width)},
                     .optional = true});
  if (c.vision_width > 0)
    specs.push_back({.name = "vision",
                     .meaning = "what a picture encoder saw",
                     .shape = {batch, any, Extent::number(c.vision_width)},
                     .optional = true});
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
  specs.push_back(modulations_spec());
  specs.push_back({.name = kChange,
                   .meaning = "change by all blocks",
                   .shape = {batch, any, Extent::number(c.hidden)},
                   .optional = true,
                   .source = Source::Sampler});
  return specs;
}

std::int64_t in_tokens(std::int64_t cells, std::int64_t patch) {
  return (cells + patch - 1) / patch;
}

/// [T · rows · columns, 3]: frame, row and column of the tokens of a latent [B, C, T, h, w].
Tensor positions_of(const Tensor& latent, std::int64_t patch) {
  auto options = at::TensorOptions().dtype(at::kFloat).device(latent.device());
  std::vector<std::int64_t> shape = {latent.size(2), in_tokens(latent.size(3), patch),
                                     in_tokens(latent.size(4), patch)};
  auto along = [&](std::size_t axis) {
    std::vector<std::int64_t> view(3, 1);
    view[axis] = shape[axis];
    return at::arange(shape[axis], options).view(view).expand(shape);
  };
  return at::stack({along(0), along(1), along(2)}, -1).flatten(0, 2);
}

/// tokens [B, T · rows · columns, C · patch²], the cells of a channel side by side -> a latent of the
/// sizes of `like`.
Tensor to_latent(const Tensor& tokens, at::IntArrayRef like, std::int64_t patch) {
  auto frames = like[2], rows = in_tokens(like[3], patch), columns = in_tokens(like[4], patch);
  auto cells = tokens.reshape({tokens.size(0), frames, rows, columns, -1, patch, patch});
  return cells.permute({0, 4, 1, 2, 5, 3, 6})
      .reshape({tokens.size(0), -1, frames, rows * patch, columns * patch})
      .narrow(3, 0, like[3])
      .narrow(4, 0, like[4])
      .contiguous();
}

/// What the video's tokens are made of, and where they lie. Frames that are given stand behind all
/// others, as FLUX's blocks take tokens with a modulation of their own.
struct Video {
  Tensor tokens, positions;    // [B, Li, channels · patch²], [Li, 3]
  std::int64_t reference = 0;  // tokens at the start
  std::int64_t made = 0, given = 0;
};

Video video_of(const Inputs& inputs, std::int64_t patch) {
  const auto& x = inputs["x"];
  const auto& beside = inputs["concat"];
  auto all =
      patches_as_tokens(beside.defined() ? at::cat({x, beside.to(x.scalar_type())}, 1) : x, patch);
  auto places = positions_of(x, patch);
  Video video;
  video.given = inputs["given_frame"].defined() ? all.size(1) / x.size(2) : 0;
  video.made = all.size(1) - video.given;
  Tensors tokens = {all.narrow(1, video.given, video.made), all.narrow(1, 0, video.given)};
  Tensors positions = {places.narrow(0, video.given, video.made), places.narrow(0, 0, video.given)};
  if (const auto& picture = inputs["reference"]; picture.defined()) {
    tokens.insert(tokens.begin(), patches_as_tokens(picture.to(x.scalar_type()), patch));
    video.reference = tokens.front().size(1);
    auto beside_it = positions_of(picture, patch);
    beside_it.select(1, 0).fill_(-1);
    beside_it.select(1, 2).add_(static_cast<double>(in_tokens(x.size(4), patch)));
    positions.insert(positions.begin(), beside_it);
  }
  video.tokens = at::cat(tokens, 1);
  video.positions = at::cat(positions);
  return video;
}

/// [B, 1, 1, before + L + behind] to be added to scores, of a mask [B, L] (1 = counts); what stands
/// around it counts.
Tensor score_mask(const Tensor& mask, std::int64_t behind, at::ScalarType dtype,
                  std::int64_t before = 0) {
  if (!mask.defined()) return {};
  // Far below every score, and a number in every type.
  constexpr double never = -60000;
  auto scores = ((1.0 - mask.to(at::kFloat)) * never).to(dtype);
  return at::constant_pad_nd(scores, {before, behind}).view({mask.size(0), 1, 1, -1});
}

/// Where tokens are, with the call's frequency of time in place of the trained one.
nn::RopeTable turned(const Tensor& places, const flux::Config& blocks, const Inputs& inputs) {
  auto table = nn::rope_table(places, blocks.axes, inputs.number(kBase, kTheta));
  const auto index = static_cast<std::int64_t>(inputs.number(kRiflex, 0));
  if (index < 1 || index > blocks.axes.front() / 2) return table;
  constexpr double part_of_circle = 0.9;
  const auto frames = static_cast<double>(inputs["x"].size(2));
  auto angle =
      places.select(-1, 0).to(at::kDouble) * (part_of_circle * 2 * std::numbers::pi / frames);
  table.cos.select(-1, index - 1).copy_(angle.cos());
  table.sin.select(-1, index - 1).copy_(angle.sin());
  return table;
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
    if (c.is_15()) further.emplace(root.block("further_tokens"), c);
    auto blocks = c.blocks();
    for (std::int64_t i = 0; i < c.depth; ++i)
      doubles.emplace_back(root / "double_blocks" / i, blocks);
    for (std::int64_t i = 0; i < c.single_depth; ++i)
      singles.emplace_back(root / "single_blocks" / i, blocks);
    last.emplace((root / "final_layer").block(), blocks);
  }

  Entrance in;
  std::vector<RefinerBlock> refiners;
  std::optional<FurtherTokens> further;
  std::vector<flux::DoublePart> doubles;
  std::vector<flux::SinglePart> singles;
  std::optional<Part<flux::LastLayer>> last;
};

/// One call's way through the layers.
class Transformer::Call {
 public:
  Call(const Transformer& network, const Inputs& inputs)
      : parts_(*network.parts_), config_(network.config_), inputs_(inputs) {}

  Tensor run(const Patches& patches) {
    begin();
    if (inputs_.number(kEntrance, 0) != 0) return entrance();
    // Only who asks for the change pays for the memory of where it begins.
    const bool keeps_change = inputs_.number(kKeepChange, 0) != 0;
    const auto before = keeps_change ? img_ : Tensor();
    if (const auto& change = inputs_[kChange]; change.defined())
      img_ = img_ + change.to(img_.scalar_type());
    else
      run_blocks(patches);
    auto prediction = finish();
    if (!keeps_change) return prediction;
    auto after = all_.defined() ? all_.narrow(1, text_, before.size(1)) : img_;
    KeptReferences kept(1, before.sizes(), before.options(), prediction.sizes());
    kept.keep(0, after - before);
    return kept.packed(prediction);
  }

 private:
  /// Tokens that stand in front of the text's own (further_tokens.h).
  std::int64_t further() const {
    std::int64_t count = 0;
    for (const char* name : {"glyphs", "vision"})
      if (const auto& states = inputs_[name]; states.defined()) count += states.size(1);
    return count;
  }

  void run_blocks(const Patches& patches) {
    const auto& mask = inputs_["attention_mask"];
    auto among_text = score_mask(mask, 0, txt_.scalar_type());
    for (const auto& block : parts_.refiners) txt_ = block.forward(txt_, refining_, among_text);
    if (parts_.further) txt_ = parts_.further->before(txt_, inputs_["glyphs"], inputs_["vision"]);
    mask_ = score_mask(mask, img_.size(1), img_.scalar_type(), further());
    const flux::BlockModulations known(config_.blocks(), inputs_[kModulations], img_.size(0),
                                       img_.scalar_type());
    for (std::size_t i = 0; i < parts_.doubles.size(); ++i)
      if (const auto& part = parts_.doubles[i]; patches.skipped.count(part.name) == 0)
        through(part, static_cast<std::int64_t>(i), known);
    const auto weak = static_cast<std::size_t>(inputs_.number(kWeakBlock, 0));
    for (std::size_t i = 0; i < parts_.singles.size(); ++i)
      if (const auto& part = parts_.singles[i]; patches.skipped.count(part.name) == 0)
        through(part, i + 1 == weak ? inputs_.number(kWeakWay, 0) : 0,
                known ? known.single(static_cast<std::int64_t>(i)) : part.modulations({vec_})[0]);
  }

  Tensor entrance() const {
    const auto modulation = parts_.doubles.front().image_modulations({vec_}).front();
    return flux::entrance(img_, modulation).to(at::kFloat).flatten();
  }

  VideoPlaces places() const { return {text_, inputs_["x"].size(2), given_}; }

  /// What multiplies the results of attention in such blocks (1: double, 2: single).
  std::function<Tensor(const nn::Qkv&)> attention_of(int kind, const Tensor& mask) const {
    const double weight = inputs_.number(kEnhance, 0);
    const auto chosen = static_cast<int>(inputs_.number(kEnhancedBlocks, 0));
    if (weight == 0 || (chosen & kind) == 0) return nullptr;
    return [=, where = places()](const nn::Qkv& heads) {
      auto seen = nn::attend(heads.q, heads.k, heads.v, mask);
      const auto score = enhancement(heads, where, weight);
      const auto first = kind == 1 ? where.text : 0;
      seen.narrow(1, first, seen.size(1) - first).mul_(score);
      return seen;
    };
  }

  /// The last item of the batch attends apart, all others as ever.
  std::function<Tensor(const nn::Qkv&)> weak_attention() const {
    return [where = places()](const nn::Qkv& heads) {
      const auto others = heads.q.size(0) - 1;
      auto items = [&](std::int64_t first, std::int64_t count) {
        return nn::Qkv{heads.q.narrow(0, first, count), heads.k.narrow(0, first, count),
                       heads.v.narrow(0, first, count)};
      };
      auto weak = attend_apart(items(others, 1), where);
      if (others == 0) return weak;
      auto rest = items(0, others);
      return at::cat({nn::attend(rest.q, rest.k, rest.v), weak});
    };
  }

  void begin() {
    auto video = video_of(inputs_, config_.patch);
    reference_ = video.reference;
    made_ = video.made;
    given_ = video.given;
    auto first = parts_.in.forward({video.tokens, inputs_["timestep"], inputs_["given_frame"],
                                    inputs_["context"], inputs_["vector"], inputs_["guidance"],
                                    inputs_.number(kGivenUnguided, 0) == 0});
    img_ = std::move(first.img);
    txt_ = std::move(first.txt);
    vec_ = std::move(first.vec);
    refining_ = std::move(first.refining);
    text_ = txt_.size(1) + further();
    auto places = at::cat({at::zeros({text_, 3}, video.positions.options()), video.positions});
    rope_ = turned(places.unsqueeze(0), config_.blocks(), inputs_);
  }

  void through(const flux::DoublePart& part, std::int64_t index,
               const flux::BlockModulations& known) {
    auto out = part.parts.attention.block.run(
        {img_, txt_, known ? known.image(index) : part.image_modulations({vec_})[0],
         known ? known.text(index) : part.text_modulations({vec_.narrow(1, 0, 1)})[0], rope_.cos,
         rope_.sin, mask_},
        [&](const Tensors& t) -> Tensors {
          flux::Common common{
              .img = t[2], .txt = t[3], .rope = {t[4], t[5]}, .references = given_, .mask = t[6]};
          common.attend = attention_of(1, t[6]);
          return flux::DoublePart::tensors_of(part.layers.attend({t[0], t[1]}, common));
        });
    img_.reset();
    txt_.reset();
    out = part.finish(out, given_);
    img_ = std::move(out[0]);
    txt_ = std::move(out[1]);
  }

  /// The first single block takes both streams and puts them together. `weak`: how the last item is
  /// weakened, 0: it is not.
  void through(const flux::SinglePart& part, double weak, const Tensor& modulation) {
    auto taken = all_.defined() ? Tensors{all_, {}} : Tensors{txt_, img_};
    img_.reset();
    txt_.reset();
    all_.reset();
    taken.insert(taken.end(), {modulation, rope_.cos, rope_.sin, mask_});
    all_ = part.main.block.run1(taken, [&](const Tensors& t) {
      auto tokens = t[1].defined() ? at::cat({t[0], t[1]}, 1) : t[0];
      auto attend = weak == kApart ? weak_attention()
                    : weak != 0    ? std::function<Tensor(const nn::Qkv&)>()
                                   : attention_of(2, t[5]);
      auto made = part.layers.forward(
          tokens, {t[2], {}, {t[3], t[4]}, given_, t[5], {}, {}, std::move(attend)});
      if (weak != kResidual) return made;
      const auto others = tokens.size(0) - 1;
      return at::cat({tokens.narrow(0, 0, others), made.narrow(0, others, 1)});
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
      return to_latent(tokens, inputs_["x"].sizes(), config_.patch);
    });
  }

  const Parts& parts_;
  const Config& config_;
  const Inputs& inputs_;
  std::int64_t text_ = 0, reference_ = 0, made_ = 0, given_ = 0;  // tokens
  Tensor img_, txt_, all_, vec_, refining_, mask_;
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

std::int64_t Transformer::modulation_numbers(const Inputs& call) const {
  // Frames that are given have a level of their own.
  if (call.has("given_frame")) return 0;
  return flux::BlockModulations::numbers_of(config_.blocks(), call["x"].size(0));
}

Tensor Transformer::modulations(const Inputs& call, const std::vector<Tensor>& timesteps) const {
  return flux::BlockModulations::made(
      parts_->doubles, parts_->singles,
      parts_->in.levels(timesteps, call["vector"], call["guidance"]));
}

}  // namespace distorch::models::hunyuan_video
