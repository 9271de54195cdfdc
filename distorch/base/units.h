#pragma once
#include <cstdint>
#include <string>

namespace distorch {

inline constexpr double KiB = 1024.0;
inline constexpr double MiB = 1024.0 * KiB;
inline constexpr double GiB = 1024.0 * MiB;
inline constexpr double GB = 1e9;

/// "1.50 GiB", "12.0 MiB", "640 B": bytes for people, powers of 1024.
std::string human_bytes(double bytes);

/// "1:02:03", "4:05" or "7.3 s": a duration for people; "?" where it is not finite.
std::string human_seconds(double seconds);

/// Reads "10GiB", "512 MiB", "1.5gb", "300m", "4096" into bytes; k/m/g/t with or without "b" or
/// "ib" are powers of 1024, as in allocation strings. Throws Error(Usage) that quotes the text:
/// negative, NaN, unknown unit, overflow.
std::int64_t parse_bytes(const std::string& text);

}  // namespace distorch
