#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Numbers of 8 bits with one scale for the whole tensor (or one a row): weight = values · scale.
/// Companions: the scale ("scale_weight", today "weight_scale"; float32, [] or [1] or [out, 1]) and
/// the input's scale, which only products in 8 bits use.
/// Where the device has products of 8-bit numbers and the layer computes in a half type, weights in
/// float8_e4m3fn with one scale are multiplied as they lie (fast_linear()); all others are decoded.
/// So are those in float8_e5m2, where ComfyUI rounds the inputs to 3 significant bits and, having no
/// product for them, decodes both.
/// Source: ComfyUI 0.33 comfy/ops.py (MixedPrecisionOps), comfy/quant_ops.py, QUANTIZATION.md.
const Encoding& float8_e4m3fn();
const Encoding& float8_e5m2();
/// float8_e4m3fn of a layer that must not multiply 8-bit numbers: "full_precision_matrix_mult" says
/// so, and so it is in text encoders.
const Encoding& float8_e4m3fn_decoded();

/// Whether a device multiplies 8-bit numbers: found out by trying, once.
bool has_products(at::Device device);

/// While it lives, simulated devices stand for this device in this thread, whose products they are
/// asked for: dry runs of what it will compute.
class [[nodiscard]] ProductsOf {
 public:
  explicit ProductsOf(at::Device device);
  ~ProductsOf();
  ProductsOf(const ProductsOf&) = delete;
  ProductsOf& operator=(const ProductsOf&) = delete;

 private:
  std::optional<at::Device> before_;
};

/// The device itself or, of a simulated one, what it stands for in this thread.
at::Device stood_for(at::Device device);

/// x · Wᵀ + bias as a product of 8-bit numbers: x [..., in] of a half type by the weight's input
/// scale (1 without one) as to_float8() makes it, with the numbers as they lie; both scales and the
/// bias are applied to the sums in float32; in x's dtype. Undefined where the weight is no
/// float8_e4m3fn of one scale, a size is no multiple of 16, or the device has no such products.
at::Tensor fast_linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias);

/// The same on any device, the CPU's in float32, for a weight and inputs that fit it:
/// distorch::float8_linear.
at::Tensor float8_linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias);

}  // namespace distorch::quant
