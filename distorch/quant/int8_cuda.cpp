#include "distorch/quant/int8_cuda.h"

#include <ATen/ATen.h>

#include <bit>

#include "distorch/device/cuda/nvrtc.h"
#include "distorch/device/streams.h"
#include "distorch/quant/cuda_sources.h"
#include "distorch/quant/rotation.h"

namespace distorch::quant::cuda {
namespace {

using device::cuda::define_of;
using device::cuda::kernel;
using device::cuda::launch;

/// How many pairs of bits of a place in its group are rotated by; nothing for a group that the
/// kernels do not know: a warp has 256 numbers.
std::optional<int> stages_of(std::int64_t group) {
  constexpr std::int64_t most = 256;
  if (group == 0) return 0;
  if (!is_rotation(group) || group > most) return {};
  return std::countr_zero(static_cast<std::uint64_t>(group)) / 2;
}

bool is_readable(const at::Tensor& x) {
  return define_of(x.scalar_type()) && x.is_contiguous() && x.numel() > 0 && x.size(-1) % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % (8 * x.element_size()) == 0;
}

}  // namespace

at::Tensor rotated(const at::Tensor& x, std::int64_t group) {
  constexpr unsigned warps = 8;
  auto stages = stages_of(group);
  auto numbers = x.contiguous();
  if (!stages || !is_readable(numbers)) return {};
  auto* function = kernel(x.device().index(), rotate_source(), define_of(x.scalar_type()));
  if (!function) return {};
  auto y = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  const void* from = numbers.const_data_ptr();
  void* to = y.mutable_data_ptr();
  // Groups lie one behind the other, whatever the rows are.
  long long size = numbers.numel();
  void* arguments[] = {&from, &to, &size, &*stages};
  constexpr std::int64_t each = 256 * warps;
  launch(rotate_source(), function, {static_cast<unsigned>((size + each - 1) / each)}, {32, warps},
         0, device::current_stream(x.device()), arguments);
  return y;
}

std::pair<at::Tensor, at::Tensor> whole_rows(const at::Tensor& x, std::int64_t padded, int rotated,
                                             const Levels& levels) {
  constexpr unsigned warps = 8;
  auto stages = stages_of(rotated);
  auto numbers = x.contiguous();
  if (!stages || !is_readable(numbers)) return {};
  auto* function = kernel(x.device().index(), whole_rows_source(), define_of(x.scalar_type()));
  if (!function) return {};
  auto whole = at::empty({padded, x.size(1)}, x.options().dtype(at::kChar));
  auto scales = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  const void* from = numbers.const_data_ptr();
  void *to = whole.mutable_data_ptr(), *by = scales.mutable_data_ptr();
  int rows = static_cast<int>(x.size(0)), width = static_cast<int>(x.size(1));
  int most = levels.most, least = levels.least;
  float floor = levels.floor;
  void* arguments[] = {&from, &to, &by, &rows, &width, &*stages, &most, &least, &floor};
  launch(whole_rows_source(), function, {static_cast<unsigned>(padded)}, {32, warps}, 0,
         device::current_stream(x.device()), arguments);
  return {whole, scales};
}

at::Tensor scaled(const at::Tensor& sums, const at::Tensor& row, const at::Tensor& scale,
                  const at::Tensor& bias, at::ScalarType dtype) {
  constexpr unsigned threads = 256;
  const char* kind = define_of(dtype);
  const auto rows = row.size(0), width = sums.size(1);
  if (!kind || !sums.is_contiguous() || width % 4 != 0 || rows == 0) return {};
  auto* function = kernel(sums.device().index(), scaled_source(), kind);
  if (!function) return {};
  auto added = bias.defined() ? bias.to(dtype).contiguous() : bias;
  auto y = at::empty({rows, width}, sums.options().dtype(dtype));
  const void *from = sums.const_data_ptr(), *by_row = row.const_data_ptr(),
             *by = scale.const_data_ptr(),
             *plus = added.defined() ? added.const_data_ptr() : nullptr;
  void* to = y.mutable_data_ptr();
  int columns = static_cast<int>(width), one = scale.numel() == 1;
  void* arguments[] = {&from, &to, &by_row, &by, &plus, &columns, &one};
  launch(scaled_source(), function, {static_cast<unsigned>(rows)}, {threads}, 0,
         device::current_stream(sums.device()), arguments);
  return y;
}

at::Tensor nibbles(const at::Tensor& bytes, const at::Tensor& scales, const at::Tensor& levels,
                   std::int64_t group) {
  constexpr unsigned threads = 128;
  constexpr int each = 4;  // bytes of a word
  auto from = bytes.contiguous();
  const auto rows = from.size(0), width = from.size(1);
  if (rows == 0 || width == 0 || width % each != 0 ||
      reinterpret_cast<std::uintptr_t>(from.const_data_ptr()) % each != 0)
    return {};
  auto* function = kernel(bytes.device().index(), nibbles_source(), "-DKIND=0");
  if (!function) return {};
  auto y = at::empty({rows, 2 * width}, from.options().dtype(at::kChar));
  auto by = scales.defined() ? scales.contiguous() : scales;
  auto of = levels.defined() ? levels.contiguous() : levels;
  const void *data = from.const_data_ptr(), *factors = by.defined() ? by.const_data_ptr() : nullptr,
             *table = of.defined() ? of.const_data_ptr() : nullptr;
  void* to = y.mutable_data_ptr();
  int words = static_cast<int>(width / each), numbers = static_cast<int>(group);
  void* arguments[] = {&data, &to, &factors, &table, &words, &numbers};
  launch(nibbles_source(), function, {static_cast<unsigned>(rows)}, {threads}, 0,
         device::current_stream(bytes.device()), arguments);
  return y;
}

}  // namespace distorch::quant::cuda
