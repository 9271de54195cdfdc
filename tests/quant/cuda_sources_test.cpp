#include "distorch/quant/cuda_sources.h"

#include <doctest/doctest.h>

using namespace distorch;

TEST_CASE("CUDA kernels of packed weights compile for every architecture and type") {
  if (!device::cuda::has_compiler()) {
    MESSAGE("NVRTC is not there");
    return;
  }
  for (const auto& source : quant::cuda::sources())
    for (const char* target : {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"})
      for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
        CAPTURE(source.name);
        CAPTURE(target);
        CHECK_NOTHROW(device::cuda::try_compile(source, target, device::cuda::define_of(dtype)));
      }
}
