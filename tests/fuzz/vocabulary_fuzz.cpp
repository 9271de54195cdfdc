// Vocabularies of text encoders: SentencePiece models, tokenizer.json, ranks of byte pairs.
#include <cstdint>
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/tokenizers/qwen_bpe.h"
#include "distorch/tokenizers/unigram.h"

using namespace distorch;
using namespace distorch::tokenizers;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    if (data[0] % 3 == 0) QwenBpe::parse(bytes, "fuzz");
    if (data[0] % 3 == 0) return 0;
    Unigram unigram(
        data[0] % 3 == 1 ? read_sentencepiece(bytes, "fuzz") : read_tokenizer_json(bytes, "fuzz"),
        "fuzz");
    unigram.encode(bytes.substr(bytes.size() / 2));
  } catch (const Error&) {
  }
  return 0;
}
