#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace distorch::server {

/// The bytes as base64 (RFC 4648) with padding.
std::string base64_of(std::string_view bytes);
/// For addresses: "-" and "_" instead of "+" and "/", without padding.
std::string base64_for_address(std::string_view bytes);
/// Nothing where the text is none of base64_for_address().
std::optional<std::string> bytes_of_address(std::string_view text);

}  // namespace distorch::server
