#pragma once
#include <string>
#include <vector>

#include "distorch/tokenizers/byte_spelling.h"
#include "distorch/tokenizers/llama_bpe.h"

namespace distorch::random_model {

/// As many tokens as Llama 3's vocabulary has, as GGUF files spell them: every byte, the two words
/// that chat templates are told by where Llama has them, and else what no text has.
inline std::vector<std::string> llama_vocabulary() {
  using tokenizers::LlamaBpe;
  constexpr int first_rare = 0x80;  // bytes that plain texts do not have
  constexpr int bytes = 256;
  std::vector<std::string> tokens;
  auto put = [&](const std::string& token) {
    tokens.push_back(tokenizers::spelling_of_bytes(token));
  };
  for (int byte = 0; byte < bytes; ++byte) put(std::string(1, static_cast<char>(byte)));
  put("us");
  put("er");
  auto next = [&] {
    const auto rank = static_cast<int>(tokens.size());
    if (rank == LlamaBpe::empty_line_token) put("\n\n");
    if (rank == LlamaBpe::user_token) put("user");
    return rank < LlamaBpe::start_token;
  };
  for (int a = first_rare; a < bytes; ++a)
    for (int b = 0; b < bytes && next(); ++b) put({static_cast<char>(a), static_cast<char>(b)});
  for (int a = first_rare; a < bytes; ++a)
    for (int b = 0; b < bytes; ++b)
      for (int c = 0; c < bytes && next(); ++c)
        put({static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)});
  return tokens;
}

}  // namespace distorch::random_model
