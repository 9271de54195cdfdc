#include "distorch/models/modulated.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::models {

InputSpec modulations_spec() {
  return {.name = kModulations,
          .meaning = "modulations of the noise level",
          .shape = {Extent::any()},
          .optional = true,
          .source = InputSpec::Source::Sampler};
}

GivenModulations::GivenModulations(const at::Tensor& numbers, std::int64_t wanted,
                                   at::ScalarType dtype) {
  if (!numbers.defined()) return;
  if (numbers.numel() != wanted)
    throw Error(ErrorKind::Shape, "diffusion model",
                fmt::format("takes {} modulations in this call, got {}", wanted, numbers.numel()));
  numbers_ = numbers.to(dtype);
}

at::Tensor GivenModulations::of(std::int64_t before, std::int64_t batch, std::int64_t width) const {
  return numbers_.narrow(0, batch * before, batch * width).view({batch, 1, width});
}

void MadeModulations::add(const std::vector<at::Tensor>& by_level) {
  blocks_.push_back(at::stack(by_level).flatten(1).to(at::kCPU));
}

at::Tensor MadeModulations::all() const { return at::cat(blocks_, 1); }

}  // namespace distorch::models
