#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/models/joint_parts.h"
#include "distorch/models/qwen_image/config.h"
#include "distorch/nn/activated_linear.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/qkv.h"
#include "distorch/nn/rope.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::qwen_image {

/// The two kinds of tokens that attend together: [B, L, width] each.
struct Streams {
  at::Tensor image, text;
};

/// What modulates the tokens of a block: [B, 1, 6·width], of the image with
/// BlockContext::noiseless [2·B, 1, 6·width], the second half that of a timestep of 0.
struct Modulations {
  at::Tensor image, text;
};

/// What a block sees of a call.
struct BlockContext {
  Modulations modulations;  // its own
  nn::RopeTable image_positions, text_positions;
  at::Tensor mask;  // added to the scores [B, 1, 1, text + image tokens]; undefined: none
  /// Image tokens from this one on are modulated as without noise; 0: none.
  std::int64_t noiseless = 0;
};

/// One joint step: image and text tokens attend together, each kind has its own weights. Source:
/// ComfyUI comfy/ldm/qwen_image/model.py, QwenImageTransformerBlock.
class JointBlock {
 public:
  /// `place`: where its weights are, "transformer_blocks.0"; it makes blocks of it.
  JointBlock(const weights::Scope& place, const Config& config);
  /// Of SiLU of the timestep's embedding [B, width] at some levels: [B, 1, 6·width] each.
  weights::Tensors image_modulations(const weights::Tensors& levels) const;
  weights::Tensors text_modulations(const weights::Tensors& levels) const;
  /// Of one level, `time` [B or 2·B, width].
  Modulations modulations(const at::Tensor& time, std::int64_t batch) const {
    return {image_modulations({time}).front(),
            text_modulations({time.narrow(0, 0, batch)}).front()};
  }
  /// `residual` [B, n, width] is added to the first n image tokens of the result; undefined: none.
  Streams forward(const Streams& x, const BlockContext& context,
                  const at::Tensor& residual = {}) const;

 private:
  struct Stream {
    Stream(const JointParts& parts, const Config& config, bool image);
    nn::Linear modulation, q, k, v, out, mlp_in;
    nn::ActivatedLinear mlp_out;
    nn::RmsNorm norm_q, norm_k;
  };
  /// A half's shift, scale and gate [B, 1, width]; those of a timestep of 0 behind them where there
  /// are tokens without noise.
  struct Modulation {
    at::Tensor shift, scale, gate, shift0, scale0, gate0;
    std::int64_t noiseless = 0;

    at::Tensor normed(const at::Tensor& x) const;
    at::Tensor added(const at::Tensor& x, const at::Tensor& y) const;
  };
  /// Of a half's part of what a stream's modulation gives, [B or 2·B, 1, 3·width].
  static Modulation modulation(const at::Tensor& half, std::int64_t noiseless);
  /// What x attends with, into `to` [B, L, heads, D].
  void prepare(const nn::Qkv& to, const Stream& stream, const at::Tensor& x,
               const nn::RopeTable& positions) const;
  /// Both streams after attention. The modulations: their first half.
  weights::Tensors attend(const Streams& x, const BlockContext& context,
                          const Modulation& image_mod, const Modulation& text_mod) const;
  static at::Tensor add_mlp(const Stream& stream, const at::Tensor& x,
                            const Modulation& modulation);

  std::int64_t heads_;
  JointParts parts_;
  Stream image_, text_;
};

}  // namespace distorch::models::qwen_image
