#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace distorch::server {

/// "%41%2Fb" -> "A/b". A "%" that no two hexadecimal digits follow stays as it is. With
/// `plus_is_space` (queries and forms) "+" becomes a space.
std::string percent_decoded(std::string_view text, bool plus_is_space = false);

/// Everything but letters, digits and "-._~" as "%XX": fit for one segment or one value of a query.
std::string percent_encoded(std::string_view text);

/// "a=1&b=x%20y&c" -> {a, 1}, {b, x y}, {c, ""}, in their order. Empty pieces are left out.
std::vector<std::pair<std::string, std::string>> parse_query(std::string_view text);

}  // namespace distorch::server
