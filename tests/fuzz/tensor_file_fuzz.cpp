// Whole weights files from strangers, of whichever format they claim to be (torch.save's zip archives
// and rows of pickles, safetensors, GGUF): open_tensor_file must answer with tensors that lie inside
// the file and have as many bytes as their shapes say, or with Error.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/formats/tensor_file.h"

namespace {

/// A file in memory that has a path.
class MemoryFile {
 public:
  MemoryFile(const unsigned char* data, std::size_t size)
      : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_ < 0 || ::write(descriptor_, data, size) != static_cast<ssize_t>(size))
      std::abort();
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  int descriptor_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace distorch;
  const MemoryFile memory(data, size);
  try {
    const auto file = formats::open_tensor_file(memory.path());
    for (const auto& tensor : file.tensors()) {
      if (tensor.offset_bytes > size || tensor.size_bytes > size - tensor.offset_bytes ||
          tensor.elements() < 0)
        std::abort();
      if (tensor.packing.empty() &&
          static_cast<std::size_t>(tensor.elements()) * formats::bits_of(tensor.dtype) / 8 !=
              tensor.size_bytes)
        std::abort();
      if (file.bytes(tensor).size() != tensor.size_bytes) std::abort();
    }
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Internal) std::abort();
  }
  return 0;
}
