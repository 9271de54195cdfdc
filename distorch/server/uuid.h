#pragma once
#include <string>
#include <string_view>

namespace distorch::server {

/// A random UUID (version 4).
std::string new_uuid();
/// Whether the text is a UUID in lower case with its hyphens.
bool is_uuid(std::string_view text);

}  // namespace distorch::server
