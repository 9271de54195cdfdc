#include "distorch/streaming/layout.h"

#include <algorithm>

namespace distorch::streaming {

namespace {

constexpr std::int64_t run_alignment = 256;    // what device allocators give
constexpr std::int64_t tensor_alignment = 16;  // what vector loads and matrix kernels want

std::int64_t align_up(std::int64_t value, std::int64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

/// Whether `next` can ride in `run`: same file, no gap worth a copy of its own, and aligned where
/// it lands.
bool continues(const Run& run, const weights::Stored& next) {
  auto distance = next.offset_bytes - run.file_offset;
  auto gap = distance - run.size_bytes;
  return run.file == next.file && gap >= 0 && gap < run_alignment &&
         distance % tensor_alignment == 0;
}

}  // namespace

Layout lay_out(std::vector<Wanted> wanted) {
  std::sort(wanted.begin(), wanted.end(), [](const Wanted& a, const Wanted& b) {
    return std::pair(a.stored.file.get(), a.stored.offset_bytes) <
           std::pair(b.stored.file.get(), b.stored.offset_bytes);
  });
  Layout layout;
  for (const auto& [weight, stored] : wanted) {
    if (layout.runs.empty() || !continues(layout.runs.back(), stored))
      layout.runs.push_back(
          {stored.file, stored.offset_bytes, align_up(layout.slot_bytes, run_alignment), 0});
    auto& run = layout.runs.back();
    auto offset = run.slot_offset + stored.offset_bytes - run.file_offset;
    run.size_bytes = stored.offset_bytes + stored.size_bytes - run.file_offset;
    layout.slot_bytes = run.slot_offset + run.size_bytes;
    layout.items.push_back({weight, stored, offset});
  }
  for (const auto& run : layout.runs) layout.link_bytes += run.size_bytes;
  return layout;
}

std::int64_t converted_bytes(const Item& item, at::ScalarType dtype) {
  constexpr std::int64_t alignment = 64;
  auto bytes = c10::multiply_integers(item.stored.shape) *
               static_cast<std::int64_t>(c10::elementSize(dtype));
  return (bytes + alignment - 1) / alignment * alignment;
}

at::Tensor view_item(const at::Tensor& buffer, const Item& item) {
  auto dtype = weights::to_torch(item.stored.dtype);
  return buffer.narrow(0, item.slot_offset, item.stored.size_bytes)
      .view(dtype)
      .view(item.stored.shape);
}

}  // namespace distorch::streaming
