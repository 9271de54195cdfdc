#pragma once
#include <optional>
#include <string>
#include <string_view>

/// Private to this folder.
namespace distorch::tokenizers {

/// The bytes of a base64 text, up to its first '='; nothing where it holds another character.
std::optional<std::string> decoded_base64(std::string_view text);

}  // namespace distorch::tokenizers
