#pragma once
#include <spdlog/spdlog.h>

namespace distorch::log {

/// Messages go to standard error so that standard output stays for results and JSON lines.
/// `level`: "debug", "info", "warning", "error" or "off".
void set_up(const std::string& level);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

/// Says `message` as a warning the first time it is given, never again in this process.
void warn_once(const std::string& message);

}  // namespace distorch::log
