#include "distorch/quant/cuda_sources.h"

#include <doctest/doctest.h>

#include "distorch/quant/int8_product.h"
#include "distorch/quant/int8_sources.h"

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

TEST_CASE(
    "CUDA kernels of products of whole numbers compile for every architecture that runs them") {
  if (!device::cuda::has_compiler()) {
    MESSAGE("NVRTC is not there");
    return;
  }
  const std::string kinds[] = {"-DKIND=0 ", "-DKIND=1 ", "-DKIND=2 "};
  for (int capability : {75, 80, 86, 89, 90, 100, 120}) {
    CAPTURE(capability);
    const auto target = "sm_" + std::to_string(capability);
    for (const auto& kind : kinds) {
      CHECK_NOTHROW(device::cuda::try_compile(quant::cuda::rows_source(), target,
                                              kind + "-DPASSES=2 -DROTATED=1"));
      for (const auto& tile : quant::cuda::tiles_for(capability)) {
        const auto& source =
            tile.is_hopper ? quant::cuda::hopper_source() : quant::cuda::product_source();
        CHECK_NOTHROW(device::cuda::try_compile(source, tile.is_hopper ? target + "a" : target,
                                                kind + quant::cuda::defines_of(tile)));
      }
    }
  }
}

TEST_CASE("tiles of a product fit into the memory of the devices that they are for") {
  const std::pair<int, std::int64_t> shared[] = {{75, 64 << 10}, {80, 163 << 10}, {86, 99 << 10},
                                                 {89, 99 << 10}, {90, 227 << 10}, {120, 99 << 10}};
  for (const auto& [capability, bytes] : shared)
    for (const auto& tile : quant::cuda::tiles_for(capability)) {
      CAPTURE(quant::cuda::name_of(tile));
      CHECK(quant::cuda::shared_bytes(tile) <= bytes);
    }
  CHECK(quant::cuda::tiles_for(70).empty());
}

TEST_CASE(
    "tiles that are left are cut into as many parts as there are blocks for, of enough steps") {
  CHECK(quant::cuda::best_parts(432, 132, 120) == 3);
  CHECK(quant::cuda::best_parts(264, 132, 120) == 1);
  CHECK(quant::cuda::best_parts(263, 132, 120) == 1);
  CHECK(quant::cuda::best_parts(1, 132, 24) == 4);
  CHECK(quant::cuda::best_parts(1, 132, 1000) == 8);
  CHECK(quant::cuda::best_parts(1, 132, 2) == 1);
}
