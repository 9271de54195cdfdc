#include "distorch/quant/int8_product.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/align.h"
#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/device/cuda/tensor_cores.h"
#include "distorch/device/streams.h"
#include "distorch/quant/int8_sources.h"

namespace distorch::quant::cuda {
namespace {

using device::cuda::define_of;
using device::cuda::kernel;
using device::cuda::launch;

std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool is_aligned(const at::Tensor& x, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % bytes == 0;
}

/// Whether kernels read and write these as they lie.
bool fits(const at::Tensor& y, const Int8Product& p) {
  constexpr std::int64_t piece = 16, words = 4;
  return define_of(y.scalar_type()) && y.numel() > 0 && y.stride(1) == 1 &&
         y.stride(0) % words == 0 && is_aligned(y, 8) && p.a.is_contiguous() &&
         p.b.is_contiguous() && p.a.size(0) >= y.size(0) && p.b.size(0) == y.size(1) &&
         p.a.size(1) == p.b.size(1) && p.a.size(1) > 0 && p.a.size(1) % piece == 0 &&
         p.b.size(0) % words == 0 && is_aligned(p.a, piece) && is_aligned(p.b, piece) &&
         p.rows.is_contiguous() && p.scales.is_contiguous() &&
         (p.scales.numel() == 1 || is_aligned(p.scales, 8));
}

/// Tiles of rows side by side: about 2048 rows, so that 132 tiles are near a square.
int usual_group(const Tile& tile) { return std::max(1, 2048 / (tile.rows * tile.cluster)); }

/// What a product costs by a tile: numbers multiplied one after the other, with those that its
/// rest takes the time of, and how much slower it multiplies than a tile without edges would.
double cost_of(const Tile& tile, int multiprocessors, std::int64_t m, std::int64_t n,
               std::int64_t k) {
  constexpr std::int64_t rest = 256, joining = 768, depth = 128;
  const std::int64_t beside = !tile.is_hopper && tile.columns == 128 ? 2 : 1;
  const auto at_once = std::max<std::int64_t>(1, beside * multiprocessors / tile.cluster);
  const auto count = divided_up(m, static_cast<std::int64_t>(tile.rows) * tile.cluster) *
                     divided_up(n, tile.columns);
  const int parts = tile.is_hopper ? best_parts(count, at_once, divided_up(k, depth)) : 1;
  auto length = count / at_once * (k + rest);
  if (count % at_once > 0) length += k / parts + rest + (parts > 1 ? joining : 0);
  const double slower = 1 + 24.0 / tile.rows + 24.0 / tile.columns;
  return static_cast<double>(length * beside * tile.rows * tile.columns) * slower;
}

}  // namespace

std::string name_of(const Tile& tile) {
  return fmt::format("{} {}x{}, {} stages{}{}", tile.is_hopper ? "wgmma" : "mma", tile.rows,
                     tile.columns, tile.stages,
                     tile.cluster > 1 ? fmt::format(", {} blocks", tile.cluster) : "",
                     tile.lag > 0 ? fmt::format(", lag {}", tile.lag) : "");
}

std::string defines_of(const Tile& tile) {
  constexpr int rows_of_a_warpgroup = 64;
  auto all = fmt::format("-DCOLUMNS={} -DSTAGES={}", tile.columns, tile.stages);
  if (tile.is_hopper)
    all += fmt::format(" -DGROUPS={} -DCLUSTER={} -DLAG={}", tile.rows / rows_of_a_warpgroup,
                       tile.cluster, tile.lag);
  return all;
}

std::int64_t shared_bytes(const Tile& tile) {
  // Numbers of the stages, and a scale and a bias of each column; for sm_90a barriers, and the columns
  // once for each warpgroup.
  constexpr std::int64_t depth = 64, hopper_depth = 128, alignment = 1024, barriers = 16;
  const std::int64_t lines = static_cast<std::int64_t>(tile.stages) * (tile.rows + tile.columns);
  const std::int64_t columns = std::int64_t{8} * tile.columns;
  if (!tile.is_hopper) return lines * depth + columns;
  return lines * hopper_depth + alignment + tile.stages * barriers + tile.rows / 64 * columns;
}

const std::vector<Tile>& tiles_for(int capability) {
  static const std::vector<Tile> none,
      old = {{128, 128, 2}}, usual = {{128, 128, 3}}, wide = {{128, 128, 4}, {128, 256, 4}},
      hopper = {{128, 256, 4, 1, true}, {128, 256, 4, 2, true}, {192, 192, 4, 1, true},
                {192, 192, 4, 2, true}, {128, 192, 5, 1, true}, {128, 128, 6, 1, true}};
  switch (capability) {
    case 75: return old;
    case 80: return wide;
    case 90: return hopper;
    case 86:
    case 87:
    case 89:
    case 120:
    case 121: return usual;
    default: return none;
  }
}

Tile best_tile(const std::vector<Tile>& tiles, int multiprocessors, std::int64_t m, std::int64_t n,
               std::int64_t k) {
  return *std::min_element(tiles.begin(), tiles.end(), [&](const Tile& left, const Tile& right) {
    return cost_of(left, multiprocessors, m, n, k) < cost_of(right, multiprocessors, m, n, k);
  });
}

int best_parts(std::int64_t count, std::int64_t at_once, std::int64_t steps) {
  // Fewer steps are not worth what joining sums takes.
  constexpr std::int64_t fewest_steps = 6, most_parts = 8;
  const auto left = count % at_once;
  if (left == 0) return 1;
  return static_cast<int>(
      std::max<std::int64_t>(1, std::min({at_once / left, steps / fewest_steps, most_parts})));
}

namespace {

/// What both kernels read.
struct Arguments {
  const void *rows, *scales, *bias, *a, *b;
  void* to;
  int m, n, k, one, group;
  long long stride;
};

void launch_usual(const Tile& tile, void* function, Arguments x, std::int64_t tiles,
                  const c10::Stream& stream) {
  constexpr unsigned threads = 256;
  void* arguments[] = {&x.a, &x.b, &x.to, &x.rows,   &x.scales, &x.bias,
                       &x.m, &x.n, &x.k,  &x.stride, &x.one,    &x.group};
  launch(product_source(), function, {static_cast<unsigned>(tiles)}, {threads}, shared_bytes(tile),
         stream, arguments);
}

bool launch_hopper(const Tile& tile, void* function, Arguments x, std::int64_t tiles, int parts,
                   const at::Tensor& y, const c10::Stream& stream) {
  constexpr std::int64_t depth = 128, warpgroup = 128;
  device::cuda::TensorMap left, right;
  if (!device::cuda::map_bytes(left, x.a, x.m, x.k, tile.rows) ||
      !device::cuda::map_bytes(right, x.b, x.n, x.k, tile.columns / tile.cluster))
    return false;
  const auto at_once = device::cuda::multiprocessors(stream.device_index()) / tile.cluster;
  if (parts == 0) parts = best_parts(tiles, at_once, divided_up(x.k, depth));
  const auto rest = tiles % at_once;
  const auto items = parts > 1 ? tiles - rest + rest * parts : tiles;
  at::Tensor sums, arrived;
  void *between = nullptr, *counted = nullptr;
  if (parts > 1) {
    const auto ints = y.options().dtype(at::kInt);
    const auto sharers = rest * tile.cluster * tile.rows / 64;
    sums = at::empty({sharers, parts, tile.columns / 2, warpgroup}, ints);
    arrived = at::zeros({sharers}, ints);
    between = sums.mutable_data_ptr();
    counted = arrived.mutable_data_ptr();
  }
  void* arguments[] = {&left, &right,    &x.to,  &x.rows,  &x.scales, &x.bias,  &x.m,  &x.n,
                       &x.k,  &x.stride, &x.one, &x.group, &between,  &counted, &parts};
  const auto clusters = std::min<std::int64_t>(items, at_once);
  const auto threads = static_cast<unsigned>(2 * tile.rows + warpgroup);
  launch(hopper_source(), function, {static_cast<unsigned>(clusters * tile.cluster)}, {threads},
         shared_bytes(tile), stream, arguments);
  return true;
}

}  // namespace

bool multiply(const at::Tensor& y, const Int8Product& product, const Tile& tile,
              const Order& order) {
  if (!fits(y, product)) return false;
  const auto device = y.device().index();
  const auto& source = tile.is_hopper ? hopper_source() : product_source();
  auto* function =
      kernel(device, source, std::string(define_of(y.scalar_type())) + " " + defines_of(tile));
  if (!function || !device::cuda::allow_shared(function, device, shared_bytes(tile))) return false;
  auto added =
      product.bias.defined() ? product.bias.to(y.scalar_type()).contiguous() : at::Tensor();
  const Arguments arguments{.rows = product.rows.const_data_ptr(),
                            .scales = product.scales.const_data_ptr(),
                            .bias = added.defined() ? added.const_data_ptr() : nullptr,
                            .a = product.a.const_data_ptr(),
                            .b = product.b.const_data_ptr(),
                            .to = y.mutable_data_ptr(),
                            .m = static_cast<int>(y.size(0)),
                            .n = static_cast<int>(y.size(1)),
                            .k = static_cast<int>(product.a.size(1)),
                            .one = product.scales.numel() == 1,
                            .group = order.group > 0 ? order.group : usual_group(tile),
                            .stride = y.stride(0)};
  const auto tiles = divided_up(arguments.m, static_cast<std::int64_t>(tile.rows) * tile.cluster) *
                     divided_up(arguments.n, tile.columns);
  const auto stream = device::current_stream(y.device());
  if (tile.is_hopper)
    return launch_hopper(tile, function, arguments, tiles, order.parts, y, stream);
  launch_usual(tile, function, arguments, tiles, stream);
  return true;
}

at::Tensor multiplied(const Int8Product& product, at::ScalarType dtype) {
  const auto device = product.a.device().index();
  const auto& tiles = tiles_for(device::cuda::capability(device));
  if (tiles.empty()) return {};
  const auto m = product.rows.size(0), n = product.b.size(0);
  auto y = at::empty({m, n}, product.rows.options().dtype(dtype));
  const auto tile =
      best_tile(tiles, device::cuda::multiprocessors(device), m, n, product.a.size(1));
  return multiply(y, product, tile) ? y : at::Tensor();
}

std::pair<at::Tensor, at::Tensor> int8_rows(const at::Tensor& x, std::int64_t padded, int rotated,
                                            const Levels& levels) {
  constexpr std::int64_t each = 16, most_threads = 512, group = 256;
  const auto width = x.size(1);
  if ((rotated != 0 && rotated != group) || width % (rotated ? group : each) != 0 ||
      x.numel() == 0 || !define_of(x.scalar_type()))
    return {};
  int passes = 1;
  while (passes * each * most_threads < width) passes *= 2;
  constexpr int most_passes = 4;
  auto numbers = x.contiguous();
  if (passes > most_passes || !is_aligned(numbers, 16)) return {};
  auto* function = kernel(x.device().index(), rows_source(),
                          fmt::format("{} -DPASSES={} -DROTATED={}", define_of(x.scalar_type()),
                                      passes, rotated ? 1 : 0));
  if (!function) return {};
  auto whole = at::empty({padded, width}, x.options().dtype(at::kChar));
  auto scales = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  const void* from = numbers.const_data_ptr();
  void *to = whole.mutable_data_ptr(), *by = scales.mutable_data_ptr();
  int rows = static_cast<int>(x.size(0)), numbers_of_row = static_cast<int>(width);
  int most = levels.most;
  float floor = levels.floor;
  void* arguments[] = {&from, &to, &by, &rows, &numbers_of_row, &most, &floor};
  constexpr std::int64_t warp = 32;
  const auto threads = align_up(divided_up(width, each * passes), warp);
  launch(rows_source(), function, {static_cast<unsigned>(padded)}, {static_cast<unsigned>(threads)},
         128 + (rotated ? threads / warp * kRowsRoom : 0), device::current_stream(x.device()),
         arguments);
  return {whole, scales};
}

}  // namespace distorch::quant::cuda
