#include "distorch/placement/drawing.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "distorch/base/units.h"

namespace distorch::placement {
namespace {

constexpr double kLeft = 150, kWidth = 1200, kLane = 34, kBar = 24, kTop = 46;

const char* colour(Interval::Kind kind) {
  switch (kind) {
    case Interval::Kind::Compute: return "#4c78a8";
    case Interval::Kind::Copy: return "#f58518";
    case Interval::Kind::Activation: return "#54a24b";
    case Interval::Kind::Wait: return "#e0e0e0";
  }
  return "#000000";
}

const char* word(Interval::Kind kind) {
  switch (kind) {
    case Interval::Kind::Compute: return "compute";
    case Interval::Kind::Copy: return "copy";
    case Interval::Kind::Activation: return "activation";
    case Interval::Kind::Wait: return "wait";
  }
  return "";
}

// Names come from files of strangers.
std::string escaped(const std::string& text) {
  std::string safe;
  for (char c : text) {
    if (c == '&')
      safe += "&amp;";
    else if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '"')
      safe += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      safe += c;
  }
  return safe;
}

}  // namespace

std::string draw_svg(const Model& model, const Report& report) {
  std::map<int, int> row;  // lane -> row: lanes that do nothing are left out
  for (std::size_t lane = 0; lane < report.lanes.size(); ++lane) {
    if (report.lanes[lane].busy_s > 0 || report.lanes[lane].bytes > 0) {
      row.emplace(static_cast<int>(lane), static_cast<int>(row.size()));
    }
  }
  double end = 1e-9, last_compute = 0;
  std::map<int, double> step_end;
  for (const Interval& bar : report.intervals) {
    end = std::max(end, bar.end_s);
    if (bar.kind == Interval::Kind::Compute) {
      last_compute = std::max(step_end[bar.step], bar.end_s);
      step_end[bar.step] = last_compute;
    }
  }
  const double scale = kWidth / end, height = kTop + kLane * static_cast<double>(row.size()) + 12;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"10\" y=\"20\">{2}: {3:.4g} s per step (bound {4:.4g} s), first step {5:.4g} s, "
      "{6} streamed per step</text>\n",
      kLeft + kWidth + 20, height, escaped(model.name), report.step_s, report.bound_s,
      report.first_s, human_bytes(static_cast<double>(report.streamed_bytes)));
  for (const auto& [lane, at] : row) {
    svg += fmt::format("<text x=\"10\" y=\"{:.1f}\">{}</text>\n", kTop + kLane * at + kBar * 0.7,
                       escaped(report.lanes[lane].name));
  }
  for (const Interval& bar : report.intervals) {
    auto found = row.find(bar.lane);
    if (found == row.end()) continue;
    svg += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\" "
        "stroke=\"white\" stroke-width=\"0.3\"><title>{} {}, step {}, "
        "{:.4g} s</title></rect>\n",
        kLeft + bar.start_s * scale, kTop + kLane * found->second,
        std::max(0.2, (bar.end_s - bar.start_s) * scale), kBar, colour(bar.kind), word(bar.kind),
        escaped(model.blocks.at(static_cast<std::size_t>(bar.block)).name), bar.step + 1,
        bar.end_s - bar.start_s);
  }
  for (const auto& [step, at] : step_end) {
    svg += fmt::format(
        "<line x1=\"{0:.2f}\" x2=\"{0:.2f}\" y1=\"{1}\" y2=\"{2:.0f}\" stroke=\"#888\" "
        "stroke-dasharray=\"3 3\"/>\n"
        "<text x=\"{0:.2f}\" y=\"{3}\" fill=\"#888\" text-anchor=\"end\">step {4}</text>\n",
        kLeft + at * scale, kTop - 8, height - 8, kTop - 10, step + 1);
  }
  return svg + "</svg>\n";
}

}  // namespace distorch::placement
