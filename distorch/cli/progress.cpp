#include "distorch/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>

#include "distorch/base/units.h"

namespace distorch::cli {

using graph::Json;

std::string format_bar(double value, double max, double elapsed_s, int width) {
  double share = max > 0 ? std::clamp(value / max, 0.0, 1.0) : 0;
  auto filled = static_cast<int>(share * width);
  auto bar =
      fmt::format("[{:#<{}}{:.<{}}] {:>3.0f}/{:.0f}", "", filled, "", width - filled, value, max);
  if (value <= 0) return bar;
  double each = elapsed_s / value;
  auto rate = each >= 1 || each <= 0 ? fmt::format("{:.2f} s/it", each)
                                     : fmt::format("{:.2f} it/s", 1 / each);
  if (value >= max) return fmt::format("{}  {}, {}", bar, rate, human_seconds(elapsed_s));
  return fmt::format("{}  {}, {} left", bar, rate, human_seconds(each * (max - value)));
}

namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Prints the names of what an `executed` event says was saved.
void print_written(const graph::Executed& event, const nodes::Settings& settings) {
  if (!event.output.is_object()) return;
  for (const auto& [kind, files] : event.output.items()) {
    if (!files.is_array()) continue;
    for (const auto& file : files) {
      if (!file.is_object() || !file.contains("filename")) continue;
      auto folder =
          file.value("type", "output") == "temp" ? settings.temp_folder : settings.output_folder;
      auto path = folder / file.value("subfolder", "") / file["filename"].get<std::string>();
      std::cout << path.string() << std::endl;
    }
  }
}

class JsonReporter final : public graph::EventSink {
 public:
  void send(const graph::Event& event) override {
    if (std::holds_alternative<graph::Preview>(event)) return;
    std::cout << graph::to_json(event).dump(-1, ' ', true, Json::error_handler_t::replace)
              << std::endl;
  }
};

class BarReporter final : public graph::EventSink {
 public:
  BarReporter(Json prompt, const nodes::Settings& settings, bool quiet)
      : prompt_(std::move(prompt)),
        settings_(settings),
        quiet_(quiet),
        terminal_(::isatty(STDERR_FILENO) != 0) {}

  void send(const graph::Event& event) override {
    if (const auto* progress = std::get_if<graph::Progress>(&event))
      show(*progress);
    else if (const auto* executing = std::get_if<graph::Executing>(&event))
      begin(*executing);
    else if (const auto* executed = std::get_if<graph::Executed>(&event))
      end_line(), print_written(*executed, settings_);
    else if (std::holds_alternative<graph::ExecutionError>(event) ||
             std::holds_alternative<graph::ExecutionInterrupted>(event))
      end_line();
  }

 private:
  void begin(const graph::Executing& event) {
    end_line();
    node_ = event.node.value_or("");
    started_ = now_s();
  }

  std::string title() const {
    // Whatever else the prompt has there is no title.
    auto text_in = [](const Json& object, const char* name) -> std::string {
      if (!object.is_object() || !object.contains(name) || !object[name].is_string()) return "";
      return object[name].get<std::string>();
    };
    auto at = prompt_.find(node_);
    if (at == prompt_.end() || !at->is_object()) return node_;
    auto title = at->contains("_meta") ? text_in((*at)["_meta"], "title") : "";
    return title.empty() ? text_in(*at, "class_type") : title;
  }

  void show(const graph::Progress& event) {
    if (quiet_) return;
    bool last = event.value >= event.max;
    if (!terminal_ && !last) return;
    constexpr int width = 30;
    auto line = fmt::format("{} {}", title(),
                            format_bar(event.value, event.max, now_s() - started_, width));
    fmt::print(stderr, "{}{}", terminal_ ? "\r\x1b[K" : "", line);
    open_ = true;
    if (last) end_line();
    std::fflush(stderr);
  }

  void end_line() {
    if (open_) fmt::print(stderr, "\n");
    open_ = false;
  }

  Json prompt_;
  const nodes::Settings& settings_;
  bool quiet_, terminal_, open_ = false;
  std::string node_;
  double started_ = 0;
};

}  // namespace

std::unique_ptr<graph::EventSink> make_reporter(Reporting reporting, Json prompt,
                                                const nodes::Settings& settings) {
  if (reporting == Reporting::Json) return std::make_unique<JsonReporter>();
  return std::make_unique<BarReporter>(std::move(prompt), settings, reporting == Reporting::Quiet);
}

}  // namespace distorch::cli
