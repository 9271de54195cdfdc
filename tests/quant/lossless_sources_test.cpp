#include <doctest/doctest.h>

#include "distorch/device/cuda/numbers.h"
#include "distorch/quant/bf16_planes_kernel.h"
#include "distorch/quant/four_bit.h"

using namespace distorch;

TEST_CASE("kernels of packed bf16 and of four bits compile for every architecture") {
  if (!device::cuda::has_compiler()) {
    MESSAGE("NVRTC is not there");
    return;
  }
  for (const char* target : {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"}) {
    CAPTURE(target);
    for (const char* eights : {"-DEIGHTS=0", "-DEIGHTS=1"})
      CHECK_NOTHROW(device::cuda::try_compile(quant::bf16_planes_source(), target, eights));
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      CHECK_NOTHROW(device::cuda::try_compile(quant::four_bit_source(), target,
                                              device::cuda::define_of(dtype)));
  }
}
