#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::streaming {

/// What stretches are aligned to in a slot, in bytes: what device allocators give.
inline constexpr std::int64_t stretch_alignment = 256;

/// A stretch of a file that one copy moves, and where it lands in a slot.
struct Stretch {
  std::shared_ptr<const formats::TensorFile> file;
  std::int64_t file_offset = 0;  // bytes
  std::int64_t slot_offset = 0;  // bytes, a multiple of 256 where the block is whole
  std::int64_t size_bytes = 0;

  formats::ByteRange range() const {
    return {static_cast<std::size_t>(file_offset), static_cast<std::size_t>(size_bytes)};
  }
};

/// One tensor inside a slot.
struct LaidOutWeight {
  weights::Stored stored;
  std::int64_t slot_offset = 0;  // bytes, a multiple of 16 (small tensors: of their element)
  int index = 0;                 // among the tensors that lay_out() was given
};

/// How the tensors of one block lie in a slot: bytes exactly as in the file, neighbours in the file
/// copied by one copy a stretch, every tensor aligned to 16 bytes so that matrix kernels take their fast
/// paths.
struct Layout {
  std::vector<Stretch> stretches;
  std::vector<LaidOutWeight> items;
  std::int64_t slot_bytes = 0;  // what a slot must hold
  std::int64_t link_bytes = 0;  // what the copies move
};

/// `follows`: which tensors have to begin where the one before them in the list ends, whose bytes
/// are a multiple of 256; empty: none.
Layout lay_out(const std::vector<weights::Stored>& tensors, const std::vector<bool>& follows = {});

/// `second` behind `first` in one slot; its items keep their order and come last.
Layout joined(const Layout& first, const Layout& second);

/// Some of a block's tensors, laid out without the others.
struct PartLayout {
  Layout layout;
  std::vector<int> indices;  // of its tensors in order: which of the whole block's each is
  std::vector<int> items;    // the same of its items
};
/// Those of `whole` whose index is in `kept`. Each is as far from a multiple of 256 as it is there,
/// since kernels are chosen by alignment too.
PartLayout part_of(const Layout& whole, const std::vector<bool>& kept);

/// The tensor of an item inside a buffer (uint8) laid out as its Layout says, in the file's dtype.
at::Tensor view_item(const at::Tensor& buffer, const LaidOutWeight& item);

/// All of them, in the order in which lay_out() was given them.
std::vector<at::Tensor> view_items(const at::Tensor& buffer, const Layout& layout);

/// The same where these items have been laid out as channels-last in their place.
std::vector<at::Tensor> laid_out_items(const at::Tensor& buffer, const Layout& layout,
                                       const std::vector<int>& channels_last);

/// The same of a layout whose stretches lie at these addresses of the host.
std::vector<at::Tensor> view_items(const std::vector<const std::byte*>& stretches,
                                   const Layout& layout);

/// The same where they lie in the files' mappings.
std::vector<at::Tensor> mapped_items(const Layout& layout);

}  // namespace distorch::streaming
