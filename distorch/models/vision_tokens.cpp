#include "distorch/models/vision_tokens.h"

#include "distorch/nn/activation.h"

namespace distorch::models {

VisionTokens::VisionTokens(const weights::Scope& s, std::int64_t in, std::int64_t out)
    : norm_in_(s / 0, in), first_(s / 1, in, in), second_(s / 3, in, out), norm_out_(s / 4, out) {}

at::Tensor VisionTokens::operator()(const at::Tensor& states) const {
  return norm_out_(second_(nn::gelu(first_(norm_in_(states)))));
}

}  // namespace distorch::models
