#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

#include "distorch/models/flux/config.h"
#include "distorch/models/joint_parts.h"
#include "distorch/nn/activated_linear.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/qkv.h"

/// The blocks of FLUX.1 and FLUX.2. Letters: B batch, Lt text tokens, Li tokens of the picture and
/// its references, D hidden width, H heads of Dh numbers. Source: ComfyUI comfy/ldm/flux/layers.py.
namespace distorch::models::flux {

/// How one stream of tokens follows the noise level: count · D numbers a row of vec, [B, V, D] ->
/// [B, V, count · D]. V is 2 where reference tokens are modulated on their own.
class Modulation {
 public:
  Modulation(const weights::Scope& scope, const Config& config, std::int64_t count,
             bool bias = true);
  at::Tensor operator()(const at::Tensor& vec) const;

 private:
  nn::Linear lin_;
};

/// The modulation of tokens: of `tokens` the last `references` take the second row, all others the
/// first. [B, 1 or tokens, count · D].
at::Tensor spread(const at::Tensor& modulation, std::int64_t tokens, std::int64_t references);

/// Two layers with GELU (tanh form) or silu(gate) · x between them.
class Mlp {
 public:
  Mlp(const weights::Scope& scope, const Config& config);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  bool gated_;
  nn::Linear in_;
  nn::ActivatedLinear out_;
};

/// Norms of the heads of queries and keys.
struct HeadNorms {
  HeadNorms(const weights::Scope& scope, const Config& config)
      : query(scope / "query_norm", config.head, 1e-6, "scale"),
        key(scope / "key_norm", config.head, 1e-6, "scale") {}
  nn::RmsNorm query, key;
};

/// What a double block gets and gives.
struct Tokens {
  at::Tensor img;  // [B, Li, D]
  at::Tensor txt;  // [B, Lt, D]
};

/// Keys and values of tokens, turned by their positions, [B, R, H, Dh] each.
struct KeptHeads {
  at::Tensor k, v;
};

/// What all tokens of a call have in common.
struct Common {
  /// What follows the noise level: the modulation of a double block's pictures [B, V, 6·D] and text
  /// [B, 1, 6·D], of a single block img [B, V, 3·D] alone.
  at::Tensor img, txt;
  nn::RopeTable rope;           // text first, then pictures
  std::int64_t references = 0;  // tokens at the end; counts where V is 2
  at::Tensor mask = {};  // [B, 1, tokens, tokens and known], added to scores; undefined: none
  KeptHeads known = {};  // of references of an earlier step, which are no tokens of this one
  /// What pictures say that are looked at beside the text (image_prompt.h): the tokens of groups
  /// [B, groups, tokens, H, Dh], each of which the picture attends to on its own, without positions.
  std::vector<KeptHeads> prompts = {};
  /// Stands in place of the attention of all tokens, turned heads -> [B, tokens, D]; null: plain.
  std::function<at::Tensor(const nn::Qkv& heads)> attend = nullptr;
};

/// One kind of tokens in a double block. Weights: {kind}_mod.lin, {kind}_attn.*, {kind}_mlp.*, each in
/// the part of its own.
class Stream {
 public:
  /// `kind`: "img" or "txt".
  Stream(const JointParts& parts, const std::string& kind, const Config& config);
  /// What x [B, L, D] attends with, into `to` [B, L, H, Dh]; modulation [B, 1 or L, 6·D]. `unturned`:
  /// gets the queries without their positions, where it is not null.
  void prepare(const nn::Qkv& to, const at::Tensor& x, const at::Tensor& modulation,
               const nn::RopeTable& rope, at::Tensor* unturned = nullptr) const;
  /// `attended` [B, L, D]: what attention gave for these tokens.
  at::Tensor add_attended(const at::Tensor& x, const at::Tensor& attended,
                          const at::Tensor& modulation) const;
  /// `modulation` [B, 1 or L, 3·D]: the second half of it.
  at::Tensor add_mlp(const at::Tensor& x, const at::Tensor& modulation) const;
  /// Of vec [B, V, D], where the modulation is not shared: [B, V, 6·D].
  at::Tensor modulation(const at::Tensor& vec) const { return mod_->operator()(vec); }

 private:
  std::int64_t heads_;
  std::optional<Modulation> mod_;
  nn::Linear qkv_, proj_;
  HeadNorms norm_;
  Mlp mlp_;
};

/// What the first half of a double block gives the second.
struct Attended {
  Tokens x;
  at::Tensor img_modulation, txt_modulation;  // [B, V, 3·D] and [B, 1, 3·D]
  std::vector<at::Tensor> told;               // by pictures beside the text, [B, Li, D]
};

/// Text and picture attend together, each with weights of its own, which are in place part by part:
/// for either modulation, for attend(), for finish(). Weights: double_blocks.{i}.*
class DoubleBlock {
 public:
  DoubleBlock(const JointParts& parts, const Config& config)
      : heads_(config.heads()), img_(parts, "img", config), txt_(parts, "txt", config) {}
  /// Of vec [B, V, D] -> [B, V, 6·D].
  at::Tensor image_modulation(const at::Tensor& vec) const { return img_.modulation(vec); }
  at::Tensor text_modulation(const at::Tensor& vec) const { return txt_.modulation(vec); }
  /// `kept`: gets those of the references, where it is not null.
  Attended attend(const Tokens& x, const Common& common, KeptHeads* kept = nullptr) const;
  /// `references`: as in Common.
  Tokens finish(const Attended& attended, std::int64_t references) const;

 private:
  std::int64_t heads_;
  Stream img_, txt_;
};

/// What the picture's tokens attend with before queries and keys are made of it: normed and modulated
/// by the first row of a double block's `modulation` [B, V, 6·D], [B, Li, D].
at::Tensor entrance(const at::Tensor& img, const at::Tensor& modulation);

/// All tokens alike, attention and MLP side by side: x [B, Lt + Li, D]. Weights:
/// single_blocks.{i}.*
class SingleBlock {
 public:
  /// `modulation`: where those of its modulation are, where that is not shared.
  SingleBlock(const weights::Scope& modulation, const weights::Scope& scope, const Config& config);
  /// Of vec [B, V, D], where the modulation is not shared: [B, V, 3·D].
  at::Tensor modulation(const at::Tensor& vec) const { return mod_->operator()(vec); }
  /// `common.img` counts for all tokens; `kept` as above.
  at::Tensor forward(const at::Tensor& x, const Common& common, KeptHeads* kept = nullptr) const;

 private:
  Config config_;
  std::optional<Modulation> mod_;
  nn::Linear linear1_;
  nn::ActivatedLinear linear2_;
  HeadNorms norm_;
};

/// The picture's tokens [B, L, D] -> [B, L, patch² · out channels]; vec [B, 1, D]. Weights:
/// final_layer.*
class LastLayer {
 public:
  LastLayer(const weights::Scope& scope, const Config& config);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& vec) const;

 private:
  nn::Linear modulation_, linear_;
};

}  // namespace distorch::models::flux
