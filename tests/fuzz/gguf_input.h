#pragma once
#include <cstdlib>
#include <cstring>

#include "distorch/base/error.h"
#include "distorch/formats/gguf.h"

namespace distorch::test {

/// Headers from strangers: parse_gguf must answer with tensors that lie inside the file and do not
/// overlap, or with Error. Ends the process where it does not.
inline void check_gguf_input(const unsigned char* data, std::size_t size) {
  auto read = [&](std::size_t offset, std::span<std::byte> to) {
    if (offset > size || to.size() > size - offset) std::abort();
    if (!to.empty()) std::memcpy(to.data(), data + offset, to.size());
  };
  try {
    auto header = formats::parse_gguf(read, size, "fuzz");
    std::size_t end = 0;
    for (const auto& tensor : header.tensors) {
      if (tensor.offset_bytes > size || tensor.size_bytes > size - tensor.offset_bytes ||
          tensor.offset_bytes < end || tensor.elements() < 0)
        std::abort();
      end = tensor.offset_bytes + tensor.size_bytes;
    }
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Internal) std::abort();
  }
}

}  // namespace distorch::test
