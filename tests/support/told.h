#pragma once
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <sstream>
#include <string>

namespace distorch::test {

/// What is logged from "info" on as long as this lives.
class Told {
 public:
  Told() : sink_(std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)) {
    spdlog::set_level(spdlog::level::info);
    spdlog::default_logger()->sinks().push_back(sink_);
  }
  ~Told() {
    spdlog::default_logger()->sinks().pop_back();
    spdlog::set_level(level_);
  }
  bool has(const std::string& text) const { return text_.str().find(text) != std::string::npos; }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  spdlog::sink_ptr sink_;
  spdlog::level::level_enum level_ = spdlog::get_level();
};

}  // namespace distorch::test
