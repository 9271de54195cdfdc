#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/models/sd3/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/qkv.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd3 {

/// Projections of one attention, with norms of queries and keys where the model has them.
class Attention {
 public:
  Attention(const weights::Scope& scope, const MmditConfig& config, bool with_output);
  nn::Qkv prepare(const at::Tensor& x) const;
  at::Tensor finish(const at::Tensor& attended) const { return (*proj_)(attended); }

 private:
  nn::QkvProjection qkv_;
  std::optional<nn::RmsNorm> norm_q_, norm_k_;
  std::optional<nn::Linear> proj_;
};

/// Text or picture in a joint block, with weights of its own.
class Stream {
 public:
  struct Kind {
    bool last = false;         // nothing follows: only queries, keys and values are made
    bool dual = false;         // attends to itself once more
    bool scale_first = false;  // the order of the two modulations of a last one
  };
  Stream(const weights::Scope& scope, const MmditConfig& config, const Kind& kind);

  /// What this stream brings to a joint block. x [B, L, width]; c [B, width]: SiLU of the embedded
  /// timestep and pooled text.
  struct Prepared {
    nn::Qkv joint;
    at::Tensor own;               // attention to itself, through its projection and gate
    std::vector<at::Tensor> mod;  // [B, 1, width] each
  };
  Prepared prepare(const at::Tensor& x, const at::Tensor& c) const;
  /// x after joint attention `attended` [B, L, width] and feed-forward. Not for a last one.
  at::Tensor finish(const at::Tensor& x, const at::Tensor& attended, const Prepared& from) const;
  bool is_last() const { return kind_.last; }

 private:
  Kind kind_;
  nn::Linear modulation_;
  Attention attn_;
  std::optional<Attention> attn2_;
  std::optional<nn::Linear> fc1_, fc2_;
};

/// One joint step: text and picture attend together, each keeps its own weights.
///   text [B, Lt, width], image [B, Li, width], c [B, width]: SiLU of timestep and pooled text.
/// Source: Esser et al. 2024; ComfyUI comfy/ldm/modules/diffusionmodules/mmdit.py, JointBlock.
/// Weights: joint_blocks.{i}.{context_block, x_block}.*
class JointBlock {
 public:
  /// `last`: of the network; its text goes nowhere.
  JointBlock(const weights::Scope& scope, const MmditConfig& config, bool dual, bool last);
  struct Tokens {
    at::Tensor text, image;  // text: undefined after the last block
  };
  Tokens forward(const Tokens& x, const at::Tensor& c) const;

 private:
  weights::Block block_;
  Stream text_, image_;
};

}  // namespace distorch::models::sd3
