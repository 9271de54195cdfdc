#pragma once
#include <string>
#include <string_view>

namespace distorch {

/// The text with its ASCII letters in lower case, whatever the locale; other bytes stay.
inline std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

}  // namespace distorch
