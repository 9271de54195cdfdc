#include "tests/fuzz/gguf_input.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  distorch::test::check_gguf_input(data, size);
  return 0;
}
