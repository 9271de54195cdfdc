// ONNX files from strangers: parse_onnx must answer with tensors that lie inside the file and have as
// many numbers as their shapes say, or with Error.
#include <cstdlib>
#include <cstring>

#include "distorch/base/error.h"
#include "distorch/formats/onnx.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace distorch;
  auto read = [&](std::size_t offset, std::span<std::byte> to) {
    if (offset > size || to.size() > size - offset) std::abort();
    if (!to.empty()) std::memcpy(to.data(), data + offset, to.size());
  };
  try {
    const auto graph = formats::parse_onnx(read, size, "fuzz");
    for (const auto& tensor : graph.tensors) {
      if (tensor.range.offset > size || tensor.range.size > size - tensor.range.offset)
        std::abort();
      const auto held = tensor.dtype == formats::DType::I64
                            ? static_cast<std::int64_t>(tensor.integers.size())
                        : tensor.is_small() ? static_cast<std::int64_t>(tensor.reals.size())
                                            : static_cast<std::int64_t>(tensor.range.size) /
                                                  (tensor.dtype == formats::DType::F16 ? 2 : 4);
      if (tensor.elements() != held) std::abort();
    }
    if (graph.nodes.size() > size) std::abort();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Internal) std::abort();
  }
  return 0;
}
