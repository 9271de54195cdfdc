#include "distorch/streaming/layout.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "distorch/base/align.h"
#include "distorch/device/channels_last.h"

namespace distorch::streaming {

namespace {

constexpr std::int64_t run_alignment = 256;    // what device allocators give
constexpr std::int64_t tensor_alignment = 16;  // what vector loads and matrix kernels want
// Scales and the like are read by kernels that take them one by one.
constexpr std::int64_t small_tensor_bytes = 256;

std::int64_t alignment_of(const weights::Stored& stored) {
  auto element = static_cast<std::int64_t>(c10::elementSize(weights::to_torch(stored)));
  return stored.size_bytes < small_tensor_bytes ? element : std::max(element, tensor_alignment);
}

/// Whether `next` can ride in `run`: same file, no gap worth a copy of its own, and aligned where
/// it lands.
bool continues(const Run& run, const weights::Stored& next) {
  auto distance = next.offset_bytes - run.file_offset;
  auto gap = distance - run.size_bytes;
  return run.file == next.file && gap >= 0 && gap < run_alignment &&
         distance % alignment_of(next) == 0;
}

std::vector<at::Tensor> in_order(std::vector<at::Tensor> views, const Layout& layout) {
  std::vector<at::Tensor> ordered(views.size());
  for (std::size_t i = 0; i < views.size(); ++i)
    ordered[layout.items[i].index] = std::move(views[i]);
  return ordered;
}

}  // namespace

Layout lay_out(const std::vector<weights::Stored>& tensors) {
  std::vector<int> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::pair(tensors[a].file.get(), tensors[a].offset_bytes) <
           std::pair(tensors[b].file.get(), tensors[b].offset_bytes);
  });
  Layout layout;
  for (int index : order) {
    const auto& stored = tensors[index];
    // Two weights may share the bytes of a companion: it then has a place for each.
    if (layout.runs.empty() || !continues(layout.runs.back(), stored))
      layout.runs.push_back(
          {stored.file, stored.offset_bytes, align_up(layout.slot_bytes, run_alignment), 0});
    auto& run = layout.runs.back();
    auto offset = run.slot_offset + stored.offset_bytes - run.file_offset;
    run.size_bytes = stored.offset_bytes + stored.size_bytes - run.file_offset;
    layout.slot_bytes = run.slot_offset + run.size_bytes;
    layout.items.push_back({stored, offset, index});
  }
  for (const auto& run : layout.runs) layout.link_bytes += run.size_bytes;
  return layout;
}

Layout joined(const Layout& first, const Layout& second) {
  if (second.items.empty()) return first;
  auto both = first;
  auto start = align_up(first.slot_bytes, run_alignment);
  for (auto run : second.runs) {
    run.slot_offset += start;
    both.runs.push_back(std::move(run));
  }
  for (auto item : second.items) {
    item.slot_offset += start;
    item.index += static_cast<int>(first.items.size());
    both.items.push_back(std::move(item));
  }
  both.slot_bytes = start + second.slot_bytes;
  both.link_bytes += second.link_bytes;
  return both;
}

at::Tensor view_item(const at::Tensor& buffer, const Item& item) {
  return buffer.narrow(0, item.slot_offset, item.stored.size_bytes)
      .view(weights::to_torch(item.stored))
      .view(item.stored.shape);
}

std::vector<at::Tensor> view_items(const at::Tensor& buffer, const Layout& layout) {
  std::vector<at::Tensor> views;
  for (const auto& item : layout.items) views.push_back(view_item(buffer, item));
  return in_order(std::move(views), layout);
}

std::vector<at::Tensor> laid_out_items(const at::Tensor& buffer, const Layout& layout,
                                       const std::vector<int>& channels_last) {
  auto views = view_items(buffer, layout);
  for (int item : channels_last) {
    auto& view = views[layout.items[item].index];
    if (!buffer.is_cpu()) view = device::as_channels_last(view);
  }
  return views;
}

std::vector<at::Tensor> view_items(const std::vector<const std::byte*>& runs,
                                   const Layout& layout) {
  std::vector<at::Tensor> views;
  std::size_t run = 0;
  for (const auto& item : layout.items) {
    while (run + 1 < layout.runs.size() && item.slot_offset >= layout.runs[run + 1].slot_offset)
      ++run;
    auto options = at::TensorOptions().dtype(weights::to_torch(item.stored));
    auto* data =
        const_cast<std::byte*>(runs[run]) + (item.slot_offset - layout.runs[run].slot_offset);
    if (reinterpret_cast<std::uintptr_t>(data) % options.dtype().itemsize() == 0) {
      views.push_back(at::from_blob(data, item.stored.shape, options));
    } else {
      views.push_back(at::empty(item.stored.shape, options));
      std::memcpy(views.back().mutable_data_ptr(), data,
                  static_cast<std::size_t>(item.stored.size_bytes));
    }
  }
  return in_order(std::move(views), layout);
}

std::vector<at::Tensor> mapped_items(const Layout& layout) {
  std::vector<at::Tensor> views;
  for (const auto& item : layout.items) views.push_back(weights::mapped_tensor(item.stored));
  return in_order(std::move(views), layout);
}

}  // namespace distorch::streaming
