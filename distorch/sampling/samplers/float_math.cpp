#include "distorch/sampling/samplers/float_math.h"

namespace distorch::sampling::f32 {
namespace {

at::Tensor one(float x) { return at::scalar_tensor(x, at::kFloat); }
float number(const at::Tensor& x) { return x.item().toFloat(); }

}  // namespace

float log(float x) { return number(at::log(one(x))); }
float exp(float x) { return number(at::exp(one(x))); }
float expm1(float x) { return number(at::expm1(one(x))); }
float sqrt(float x) { return number(at::sqrt(one(x))); }
float logit(float x) { return number(at::logit(one(x))); }
float sigmoid(float x) { return number(at::sigmoid(one(x))); }

}  // namespace distorch::sampling::f32
