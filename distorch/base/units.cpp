#include "distorch/base/units.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/base/text.h"

namespace distorch {

std::string human_bytes(double bytes) {
  double size = std::abs(bytes);
  if (size >= GiB) return fmt::format("{:.2f} GiB", bytes / GiB);
  if (size >= MiB) return fmt::format("{:.1f} MiB", bytes / MiB);
  if (size >= KiB) return fmt::format("{:.1f} KiB", bytes / KiB);
  return fmt::format("{:.0f} B", bytes);
}

std::string human_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  // From here on one decimal would be rounded up to a whole minute.
  constexpr double kMinute = 59.95;
  if (seconds < kMinute) return fmt::format("{:.1f} s", seconds);
  auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

namespace {

/// Power of 1024 that a unit stands for, -1 when it is none.
int power_of_unit(std::string_view text) {
  const auto unit = lower(text);
  if (unit.empty() || unit == "b") return 0;
  const std::string letters = "kmgt";
  auto at = letters.find(unit[0]);
  if (at == std::string::npos) return -1;
  auto rest = unit.substr(1);
  return rest.empty() || rest == "b" || rest == "ib" ? static_cast<int>(at) + 1 : -1;
}

}  // namespace

std::int64_t parse_bytes(const std::string& text) {
  auto fail = [&](const char* why) -> Error {
    return Error(ErrorKind::Usage, "size '" + text + "'",
                 std::string(why) + "; write for example 10GiB, 512MiB or 4096");
  };
  const char* begin = text.c_str();
  char* end = nullptr;
  double number = std::strtod(begin, &end);
  if (end == begin || !std::isfinite(number)) throw fail("is not a number with a unit");
  if (number < 0) throw fail("is negative");
  while (std::isspace(static_cast<unsigned char>(*end))) ++end;
  std::string unit(end);
  while (!unit.empty() && std::isspace(static_cast<unsigned char>(unit.back()))) unit.pop_back();
  int power = power_of_unit(unit);
  if (power < 0) throw fail("has an unknown unit");
  double bytes = number * std::pow(1024.0, power);
  if (bytes >= 9.0e18) throw fail("is too large");
  return static_cast<std::int64_t>(bytes);
}

}  // namespace distorch
