#pragma once
#include <cstdint>
#include <string>
#include <string_view>

/// How byte-level vocabularies write tokens: each byte as one printable character. Source: the
/// published encoder of GPT-2, which GGUF files and tokenizer.json follow.
namespace distorch::tokenizers {

/// Bytes that print in Latin-1 stand for themselves, the others count on from U+0100 in order.
std::int32_t character_of_byte(unsigned char byte);
std::string spelling_of_bytes(std::string_view bytes);
/// The other way round; "" where the token holds another character.
std::string bytes_of_spelling(std::string_view token);

}  // namespace distorch::tokenizers
