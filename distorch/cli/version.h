#pragma once

namespace distorch::cli {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace distorch::cli
