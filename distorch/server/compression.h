#pragma once
#include <string>
#include <string_view>

namespace distorch::server {

/// One gzip member. `level` 1 (fast) to 9 (small).
std::string gzip(std::string_view content, int level);

/// Whether an Accept-Encoding header takes gzip ("gzip;q=0" does not).
bool accepts_gzip(std::string_view accept_encoding);

/// Texts, scripts, JSON, SVG, fonts that are not packed already, WebAssembly.
bool is_compressible(std::string_view content_type);

}  // namespace distorch::server
