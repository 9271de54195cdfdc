#include "distorch/cli/json_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/formatter.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "distorch/graph/json_text.h"

namespace distorch::cli {

namespace {

class JsonLines final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    using std::chrono::milliseconds;
    auto whole = std::chrono::floor<std::chrono::seconds>(message.time);
    auto part = std::chrono::duration_cast<milliseconds>(message.time - whole).count();
    auto time = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                            fmt::gmtime(spdlog::log_clock::to_time_t(message.time)), part);
    auto level = spdlog::level::to_string_view(message.level);
    graph::Json line = {{"time", time},
                        {"level", std::string(level.data(), level.size())},
                        {"message", std::string(message.payload.data(), message.payload.size())}};
    auto text = graph::json_line(line) + "\n";
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonLines>();
  }
};

}  // namespace

void log_as_json() { spdlog::default_logger()->set_formatter(std::make_unique<JsonLines>()); }

}  // namespace distorch::cli
