#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/denoiser.h"

namespace distorch::sampling {

/// How one of a network's inputs behaves when conditionings are batched or cropped.
/// Source: ComfyUI comfy/conds.py.
struct ModelInput {
  enum class Kind {
    Regular,     // [B, ...]; batched where shapes agree
    CrossAttn,   // [B, tokens, width]; repeated to a common number of tokens
    NoiseShape,  // [B, C, ...] of the latent's size; cropped with the area
    Constant,    // the same for the whole batch; equal numbers, or the same tensor, only
  };
  Kind kind = Kind::Regular;
  at::Tensor value;
  /// A Constant that is one number stays on the host, where comparing it costs nothing.
  std::optional<double> number;

  bool defined() const { return value.defined() || number.has_value(); }
};
using ModelInputs = std::map<std::string, ModelInput>;
/// The same after batching: what the network is called with.
using BatchedInputs = ModelInputs;

/// What a run knows when conditionings are turned into network inputs. Undefined tensors: none.
struct EncodeContext {
  at::Tensor noise;         // shape and device of the latents
  at::Tensor latent_image;  // in the network's scale
  at::Tensor denoise_mask;  // [B, C, ...], 1 = repaint
  std::uint64_t seed = 0;
  bool positive = true;
};

class Guidance;
class StepCache;

/// What the network does otherwise in one call, beside what a MODEL always does: names of blocks as
/// in models/patches.h.
struct NetworkChange {
  std::set<std::string> skipped;
  std::set<std::string> identity_attention;
  /// Where not empty, the call gives how much attention each place gets in this block, [B, 1, h, w],
  /// in place of x0.
  std::string attention_map;
};

/// What the host knows about a call.
struct CallFacts {
  float sigma = 0;                 // of all rows
  std::int64_t conditionings = 1;  // that lie behind each other in the batch, each for all pictures
  const Control* control = nullptr;       // of all of them; null: none
  const NetworkChange* change = nullptr;  // null: none
  /// Where the network's result may be told from an earlier one; null: always computed.
  StepCache* cache = nullptr;
  std::vector<const void*> owners;  // whose conditionings they are, for the cache
};

/// A diffusion model as this folder sees it; `models` implements it, tests use closed forms.
class X0Model {
 public:
  virtual ~X0Model() = default;
  virtual const ModelSampling& sampling() const = 0;
  virtual at::Device device() const = 0;
  /// A run at these levels begins: most calls will be at one of them. Default: nothing.
  virtual void expect(const std::vector<float>&) {}
  /// x [B, C, ...] float32, sigma [B] float32, both on device() -> x0 [B, C, ...] float32.
  /// One call is one pass over the weights: cond and uncond come together in B.
  virtual at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma,
                           const BatchedInputs& inputs, const CallFacts& facts) = 0;

  /// Network inputs of one conditioning, on device(). Default: "c_crossattn" from cross_attn.
  virtual ModelInputs encode(const ConditioningItem& item, const EncodeContext& context) const;
  /// May a call with x of `x_shape` be made at once? Asked with ever smaller batches; a single
  /// conditioning is run even where this says no.
  virtual bool fits(at::IntArrayRef x_shape, const std::vector<const ModelInputs*>& inputs) const;
  /// What the kept part of an inpainted latent looks like at `sigma` [B].
  virtual at::Tensor scale_latent_inpaint(const at::Tensor& sigma, const at::Tensor& noise,
                                          const at::Tensor& latent_image) const;
  /// Between the scale of a LATENT and the network's own (0.18215 for SD 1.x). Default: no change.
  virtual at::Tensor process_latent_in(const at::Tensor& latent) const { return latent; }
  virtual at::Tensor process_latent_out(const at::Tensor& latent) const { return latent; }
  virtual std::int64_t latent_channels() const { return 4; }
  /// 2 for pictures, 3 with frames.
  virtual int latent_dimensions() const { return 2; }
};

/// x0 from a network that wants scaled input and timesteps: the frame of most X0Model::apply.
/// network(scaled x, timestep [B] float32) -> output in any float type.
at::Tensor predict_x0(
    const ModelSampling& sampling, const at::Tensor& x, const at::Tensor& sigma,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& network);
/// The same through the call's cache, where it has one.
at::Tensor predict_x0(
    const ModelSampling& sampling, const at::Tensor& x, const at::Tensor& sigma,
    const CallFacts& facts,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& network);

/// A conditioning ready for the sampling loop: areas in cells, masks in latent size, times as
/// sigmas.
struct PreparedItem {
  struct Box {
    std::vector<std::int64_t> size, origin;
    bool operator==(const Box&) const = default;
  };
  ModelInputs inputs;
  std::optional<Box> box;
  double strength = 1.0;
  at::Tensor mask;  // [B or 1, H, W] on the model's device
  double mask_strength = 1.0;
  std::optional<float> sigma_start;  // counts while sigma <= sigma_start
  std::optional<float> sigma_end;    // and sigma >= sigma_end
  std::shared_ptr<const Control> control;
  bool control_for_negative = false;
};
struct PreparedConditioning {
  std::vector<PreparedItem> positive;
  std::vector<PreparedItem> negative;
  std::vector<PreparedItem> third;
};

/// How the estimates of a run's conditionings become one.
struct GuiderRule {
  enum class Kind {
    Cfg,         // negative + (positive - negative) · cfg
    Dual,        // third against negative with second_cfg, plus (positive - third) · cfg
    NestedDual,  // positive against third with cfg, and that against negative with second_cfg
    PerpNeg,     // third is the empty prompt; the negative counts as far as it is perpendicular to
                 // the positive, second_cfg times
  };
  Kind kind = Kind::Cfg;
  double cfg = 8.0;
  double second_cfg = 1.0;
  GuiderRule() = default;
  GuiderRule(double plain) : cfg(plain) {}
  GuiderRule(Kind k, double first, double second) : kind(k), cfg(first), second_cfg(second) {}
};

/// The conditionings of a run and the rule over them.
struct Guider {
  GuiderRule rule;
  Conditioning positive, negative;
  Conditioning third;  // of rules over three
};

/// Resolves areas, masks and time ranges, encodes through the model, gives every item with an area a
/// partner of the same area on the other side, and the positive's controls to the negative where
/// they say so. Source: ComfyUI comfy/samplers.py,
/// process_conds.
PreparedConditioning prepare_conditioning(const X0Model& model, const Conditioning& positive,
                                          const Conditioning& negative, EncodeContext context,
                                          const Conditioning& third = {});

/// x0 of each list: the weighted mean over its items where they count, 0 where none does. Items of
/// all lists that fit together run in one call. Source: ComfyUI comfy/samplers.py, calc_cond_batch.
std::vector<at::Tensor> predict_each(X0Model& model,
                                     const std::vector<const std::vector<PreparedItem>*>& lists,
                                     const at::Tensor& x, float sigma,
                                     const NetworkChange* change = nullptr,
                                     StepCache* cache = nullptr);

/// What a run carries from step to step; null: none of it.
struct RunState {
  Guidance* guidance = nullptr;        // what nodes changed about the formula
  StepCache* network_cache = nullptr;  // of the network's outputs
  StepCache* result_cache = nullptr;   // of guided estimates
};

/// Guidance over prepared conditionings. What counts for nothing (the negative with cfg 1) is not
/// computed.
class CfgDenoiser : public Denoiser {
 public:
  CfgDenoiser(X0Model& model, PreparedConditioning conditioning, GuiderRule rule,
              RunState state = {});

  at::Tensor operator()(const at::Tensor& x, float sigma) override;
  GuidedPair with_uncond(const at::Tensor& x, float sigma) override;
  const ModelSampling& model_sampling() const override { return model_.sampling(); }
  X0Model& model() { return model_; }

 private:
  using Items = std::vector<PreparedItem>;

  GuidedPair predict(const at::Tensor& x, float sigma, bool need_uncond);
  double cfg_at(float sigma) const;
  GuidedPair compute(const at::Tensor& x, float sigma, bool need_uncond);
  GuidedPair predict_plain(const at::Tensor& x, float sigma, bool need_uncond);
  GuidedPair predict_dual(const at::Tensor& x, float sigma, bool need_uncond);
  GuidedPair predict_perpendicular(const at::Tensor& x, float sigma, bool need_uncond);
  /// Estimates of the lists; undefined for those that are null.
  std::vector<at::Tensor> estimates(const at::Tensor& x, float sigma,
                                    const std::vector<const Items*>& lists,
                                    const NetworkChange* change = nullptr);
  /// The formula over two estimates (the second undefined: not computed) with all that nodes
  /// changed about it. `asked`: what is asked again where a change needs more estimates.
  at::Tensor guided(const at::Tensor& x, float sigma, const at::Tensor& cond,
                    const at::Tensor& uncond, double cfg, const Items& asked);

  X0Model& model_;
  PreparedConditioning conditioning_;
  GuiderRule rule_;
  RunState state_;
  at::Tensor last_uncond_;  // of the last computed step
};

/// Keeps a latent where the mask is 0: that part is set to the latent with noise before every
/// evaluation and to the latent itself after it. Source: comfy/samplers.py, KSamplerX0Inpaint.
class InpaintDenoiser : public Denoiser {
 public:
  struct Kept {
    at::Tensor mask;          // [B, C, ...], 1 = repaint
    at::Tensor latent_image;  // in the network's scale
    at::Tensor noise;
    /// What the mask is at a noise level, from the mask above; empty: always that.
    std::function<at::Tensor(const at::Tensor& mask, float sigma)> mask_at = {};
  };
  InpaintDenoiser(CfgDenoiser& inner, Kept kept);

  at::Tensor operator()(const at::Tensor& x, float sigma) override;
  GuidedPair with_uncond(const at::Tensor& x, float sigma) override;
  const ModelSampling& model_sampling() const override { return inner_.model_sampling(); }

 private:
  at::Tensor mask_at(float sigma) const;
  at::Tensor blend_in(const at::Tensor& x, const at::Tensor& mask, float sigma) const;
  at::Tensor blend_out(const at::Tensor& denoised, const at::Tensor& mask) const;

  CfgDenoiser& inner_;
  Kept kept_;
};

/// A noise mask [H, W], [B, H, W] or [B, 1, H, W] of any size as a mask of `latent_shape`.
at::Tensor fit_mask(const at::Tensor& mask, at::IntArrayRef latent_shape);

}  // namespace distorch::sampling
