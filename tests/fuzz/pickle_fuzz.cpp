// Pickles from strangers: read_pickle must answer with values that were in the bytes, or with Error;
// nothing is run, and memory is bounded by the input.
#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/formats/unpickler.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace distorch;
  try {
    std::size_t used = 0;
    const auto pickle =
        formats::read_pickle({reinterpret_cast<const char*>(data), size}, "fuzz", used);
    if (used == 0 || used > size || !pickle.root || pickle.values.size() > 4 * size + 16)
      std::abort();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Internal) std::abort();
  }
  return 0;
}
