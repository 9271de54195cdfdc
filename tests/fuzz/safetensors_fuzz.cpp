// Headers from strangers: parse_safetensors must answer with tensors that lie inside the file, or
// with Error.
#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    auto header = distorch::formats::parse_safetensors(
        {reinterpret_cast<const std::byte*>(data), size}, size, "fuzz");
    for (const auto& t : header.tensors)
      if (t.offset_bytes > size || t.size_bytes > size - t.offset_bytes) std::abort();
  } catch (const distorch::Error& error) {
    if (error.kind() == distorch::ErrorKind::Internal) std::abort();
  }
  return 0;
}
