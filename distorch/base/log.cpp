#include "distorch/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <mutex>
#include <set>

namespace distorch::log {

void set_up(const std::string& level) {
  auto logger = std::make_shared<spdlog::logger>(
      "distorch", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%^[%l]%$ %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

void warn_once(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> said;
  std::lock_guard lock(mutex);
  if (said.insert(message).second) spdlog::warn("{}", message);
}

}  // namespace distorch::log
