#include <fmt/format.h>

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "distorch/graph/json_text.h"
#include "distorch/graph/validation.h"

namespace distorch::graph {
namespace {

std::string trimmed(const std::string& text) {
  std::size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, last + 1 - first);
}

std::optional<Json> integer_from(double number, std::string& reason) {
  number = std::trunc(number);
  if (number == 0x1p64) return Json(std::numeric_limits<std::uint64_t>::max());
  if (!(number >= -0x1p63 && number < 0x1p64)) {
    reason = "does not fit into 64 bits";
    return std::nullopt;
  }
  if (number < 0) return Json(static_cast<std::int64_t>(number));
  return Json(static_cast<std::uint64_t>(number));
}

std::optional<Json> integer_from(const std::string& text, std::string& reason) {
  std::string digits = trimmed(text);
  std::size_t start = !digits.empty() && (digits[0] == '-' || digits[0] == '+') ? 1 : 0;
  bool good =
      digits.size() > start && digits.find_first_not_of("0123456789", start) == std::string::npos;
  if (!good) {
    reason = fmt::format("not an integer: {}", python_repr(text));
    return std::nullopt;
  }
  errno = 0;
  if (digits[0] == '-') {
    long long number = std::strtoll(digits.c_str(), nullptr, 10);
    if (errno == 0) return Json(static_cast<std::int64_t>(number));
  } else {
    unsigned long long number = std::strtoull(digits.c_str(), nullptr, 10);
    if (errno == 0) return Json(static_cast<std::uint64_t>(number));
  }
  reason = "does not fit into 64 bits";
  return std::nullopt;
}

std::optional<Json> to_integer(const Json& value, std::string& reason) {
  if (value.is_number_integer()) return value;
  if (value.is_boolean()) return Json(value.get<bool>() ? 1 : 0);
  if (value.is_number_float()) return integer_from(value.get<double>(), reason);
  if (value.is_string()) return integer_from(value.get_ref<const std::string&>(), reason);
  reason = "not a number";
  return std::nullopt;
}

std::optional<Json> to_number(const Json& value, std::string& reason) {
  if (value.is_number()) return Json(value.get<double>());
  if (value.is_boolean()) return Json(value.get<bool>() ? 1.0 : 0.0);
  if (value.is_string()) {
    std::string text = trimmed(value.get_ref<const std::string&>());
    char* end = nullptr;
    double number = std::strtod(text.c_str(), &end);
    // Hexadecimal, "inf" and "nan" are no values a workflow may hold.
    bool decimal = text.find_first_not_of("0123456789+-.eE") == std::string::npos;
    if (!text.empty() && decimal && *end == '\0' && std::isfinite(number)) return Json(number);
    reason = fmt::format("not a finite number: {}", python_repr(value));
    return std::nullopt;
  }
  reason = "not a number";
  return std::nullopt;
}

bool truthy(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

}  // namespace

std::optional<Json> convert_constant(const Json& value, const std::string& type,
                                     std::string& reason) {
  if (type == "INT") return to_integer(value, reason);
  if (type == "FLOAT") return to_number(value, reason);
  if (type == "STRING") return value.is_string() ? value : Json(python_str(value));
  if (type == "BOOLEAN") return Json(truthy(value));
  return value;
}

std::optional<PromptLink> as_link(const Json& value) {
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_number())
    return std::nullopt;
  double slot = value[1].get<double>();
  if (!(slot >= 0 && slot < 1e9)) return PromptLink{value[0].get<std::string>(), std::string::npos};
  return PromptLink{value[0].get<std::string>(), static_cast<std::size_t>(slot)};
}

}  // namespace distorch::graph
