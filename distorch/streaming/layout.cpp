#include "distorch/streaming/layout.h"

#include <algorithm>
#include <cstring>

#include "distorch/base/align.h"
#include "distorch/device/channels_last.h"

namespace distorch::streaming {

namespace {

constexpr std::int64_t tensor_alignment = 16;  // what vector loads and matrix kernels want
// Scales and the like are read by kernels that take them one by one.
constexpr std::int64_t small_tensor_bytes = 256;

std::int64_t alignment_of(const weights::Stored& stored) {
  auto element = static_cast<std::int64_t>(c10::elementSize(weights::to_torch(stored)));
  return stored.size_bytes < small_tensor_bytes ? element : std::max(element, tensor_alignment);
}

/// Whether `next` can ride in `stretch`: same file, no gap worth a copy of its own, and aligned where
/// it lands.
bool continues(const Stretch& stretch, const weights::Stored& next) {
  auto distance = next.offset_bytes - stretch.file_offset;
  auto gap = distance - stretch.size_bytes;
  return stretch.file == next.file && gap >= 0 && gap < stretch_alignment &&
         distance % alignment_of(next) == 0;
}

std::int64_t end_of(const Stretch& stretch) { return stretch.file_offset + stretch.size_bytes; }

std::vector<at::Tensor> in_order(std::vector<at::Tensor> views, const Layout& layout) {
  std::vector<at::Tensor> ordered(views.size());
  for (std::size_t i = 0; i < views.size(); ++i)
    ordered[layout.items[i].index] = std::move(views[i]);
  return ordered;
}

}  // namespace

Layout lay_out(const std::vector<weights::Stored>& tensors, const std::vector<bool>& follows) {
  // Tensors that follow others go where those go: only the first of a chain is sorted.
  const auto is_follower = [&](std::size_t index) {
    return index < follows.size() && follows[index];
  };
  std::vector<int> order;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (!is_follower(i)) order.push_back(static_cast<int>(i));
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::pair(tensors[a].file.get(), tensors[a].offset_bytes) <
           std::pair(tensors[b].file.get(), tensors[b].offset_bytes);
  });
  Layout layout;
  const auto place = [&](int index) {
    const auto& stored = tensors[index];
    const bool follower = is_follower(index);
    // Two weights may share the bytes of a companion: it then has a place for each.
    if (layout.stretches.empty() || !continues(layout.stretches.back(), stored) ||
        (follower && stored.offset_bytes != end_of(layout.stretches.back())))
      layout.stretches.push_back(
          {stored.file, stored.offset_bytes,
           follower ? layout.slot_bytes : align_up(layout.slot_bytes, stretch_alignment), 0});
    auto& stretch = layout.stretches.back();
    auto offset = stretch.slot_offset + stored.offset_bytes - stretch.file_offset;
    stretch.size_bytes = stored.offset_bytes + stored.size_bytes - stretch.file_offset;
    layout.slot_bytes = stretch.slot_offset + stretch.size_bytes;
    layout.items.push_back({stored, offset, index});
  };
  for (int index : order) {
    place(index);
    for (int next = index + 1; is_follower(next); ++next) place(next);
  }
  for (const auto& stretch : layout.stretches) layout.link_bytes += stretch.size_bytes;
  return layout;
}

PartLayout part_of(const Layout& whole, const std::vector<bool>& kept) {
  // What is left out between two that are kept is copied along where that is quicker than a copy
  // of its own, and hardly counts.
  const auto along = std::min<std::int64_t>(std::int64_t{64} << 10, whole.slot_bytes / 4096);
  PartLayout part;
  auto& layout = part.layout;
  std::size_t stretch = 0;
  std::int64_t moved = 0;  // what an item's offset differs by
  bool goes_on = false;    // something of this stretch has been kept
  bool left_out = false;   // something after it has not
  for (std::size_t i = 0; i < whole.items.size(); ++i) {
    const auto& item = whole.items[i];
    while (stretch + 1 < whole.stretches.size() &&
           item.slot_offset >= whole.stretches[stretch + 1].slot_offset) {
      ++stretch;
      goes_on = false;
    }
    if (!kept[item.index]) {
      left_out = true;
      continue;
    }
    const auto& from = whole.stretches[stretch];
    if (goes_on && left_out) goes_on = item.slot_offset + moved - layout.slot_bytes <= along;
    if (!goes_on) {
      const auto beyond = (item.slot_offset - layout.slot_bytes) % stretch_alignment;
      const auto offset = layout.slot_bytes + (beyond + stretch_alignment) % stretch_alignment;
      moved = offset - item.slot_offset;
      layout.stretches.push_back(
          {from.file, from.file_offset + item.slot_offset - from.slot_offset, offset, 0});
    }
    auto& to = layout.stretches.back();
    part.indices.push_back(item.index);
    part.items.push_back(static_cast<int>(i));
    layout.items.push_back(
        {item.stored, item.slot_offset + moved, static_cast<int>(layout.items.size())});
    layout.slot_bytes = layout.items.back().slot_offset + item.stored.size_bytes;
    to.size_bytes = layout.slot_bytes - to.slot_offset;
    goes_on = true;
    left_out = false;
  }
  for (const auto& copied : layout.stretches) layout.link_bytes += copied.size_bytes;
  return part;
}

Layout joined(const Layout& first, const Layout& second) {
  if (second.items.empty()) return first;
  auto both = first;
  auto start = align_up(first.slot_bytes, stretch_alignment);
  for (auto stretch : second.stretches) {
    stretch.slot_offset += start;
    both.stretches.push_back(std::move(stretch));
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

at::Tensor view_item(const at::Tensor& buffer, const LaidOutWeight& item) {
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

std::vector<at::Tensor> view_items(const std::vector<const std::byte*>& stretches,
                                   const Layout& layout) {
  std::vector<at::Tensor> views;
  std::size_t stretch = 0;
  for (const auto& item : layout.items) {
    while (stretch + 1 < layout.stretches.size() &&
           item.slot_offset >= layout.stretches[stretch + 1].slot_offset)
      ++stretch;
    auto options = at::TensorOptions().dtype(weights::to_torch(item.stored));
    auto* data = const_cast<std::byte*>(stretches[stretch]) +
                 (item.slot_offset - layout.stretches[stretch].slot_offset);
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
