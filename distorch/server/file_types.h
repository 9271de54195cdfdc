#pragma once
#include <string>
#include <string_view>

#include "distorch/server/http.h"

namespace distorch::server {

/// The content type that a file's name speaks of, by its ending; "application/octet-stream" for
/// others.
std::string type_of_name(std::string_view name);

/// Whether a browser may run or render something of this type as part of our page: HTML, scripts,
/// style sheets, and every kind of XML (SVG among them). Parameters and case do not matter.
bool may_run(std::string_view content_type);

/// A user's file as an answer that cannot become part of our page: types that may_run() are sent as
/// downloads of unknown bytes, and no browser guesses another type. `shown` allows the rest to be
/// displayed in place.
Response users_file(const std::filesystem::path& file, bool shown);

}  // namespace distorch::server
