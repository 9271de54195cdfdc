#include "distorch/quant/int8_sources.h"

#include <string>

#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/tensor_cores.h"
#include "distorch/quant/int8_text.h"

namespace distorch::quant::cuda {
namespace {

using device::cuda::KernelSource;
using device::cuda::kNumbers;

/// Words of the sources that their test on the host takes otherwise.
constexpr const char* kKernel = R"(
#define UNROLL _Pragma("unroll")
#define KERNEL extern "C" __global__
)";

}  // namespace

const KernelSource& rows_source() {
  static const std::string before = std::string(kNumbers) + kKernel;
  static const KernelSource one{"int8_rows", kInt8RowsText, before.c_str()};
  return one;
}

const KernelSource& product_source() {
  static const std::string before =
      std::string(kNumbers) + device::cuda::kTensorCores + kKernel + kInt8FinishText;
  static const KernelSource one{"int8_product", kInt8MmaText, before.c_str()};
  return one;
}

const KernelSource& hopper_source() {
  static const std::string before = std::string(kNumbers) + device::cuda::kTensorCores +
                                    device::cuda::hopper_text() + kKernel + kInt8FinishText;
  static const KernelSource one{"int8_hopper", kInt8WgmmaText, before.c_str(), true};
  return one;
}

}  // namespace distorch::quant::cuda
