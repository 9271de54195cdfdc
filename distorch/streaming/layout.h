#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::streaming {

/// A stretch of a file that one copy moves, and where it lands in a slot.
struct Run {
  std::shared_ptr<const formats::TensorFile> file;
  std::int64_t file_offset = 0;  // bytes
  std::int64_t slot_offset = 0;  // bytes, a multiple of 256
  std::int64_t size_bytes = 0;

  formats::ByteRange range() const {
    return {static_cast<std::size_t>(file_offset), static_cast<std::size_t>(size_bytes)};
  }
};

/// One weight inside a slot.
struct Item {
  int weight = 0;  // index into Manifest::weights()
  weights::Stored stored;
  std::int64_t slot_offset = 0;  // bytes, a multiple of 16
};

/// How the streamed weights of one block lie in a slot: bytes exactly as in the file, neighbours in
/// the file copied by one run, every tensor aligned to 16 bytes so that matrix kernels take their
/// fast paths.
struct Layout {
  std::vector<Run> runs;
  std::vector<Item> items;
  std::int64_t slot_bytes = 0;  // what a slot must hold
  std::int64_t link_bytes = 0;  // what the copies move
};

struct Wanted {
  int weight = 0;
  weights::Stored stored;
};

Layout lay_out(std::vector<Wanted> wanted);

/// Bytes of a weight in another dtype; whole multiples of what ATen aligns CPU tensors to, by which
/// kernels choose their path.
std::int64_t converted_bytes(const Item& item, at::ScalarType dtype);

/// The tensor of an item inside a buffer (uint8) laid out as its Layout says, in the file's dtype.
at::Tensor view_item(const at::Tensor& buffer, const Item& item);

}  // namespace distorch::streaming
