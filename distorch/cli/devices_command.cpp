#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/devices_report.h"
#include "distorch/cli/table.h"
#include "distorch/device/device.h"
#include "distorch/device/measure.h"

namespace distorch::cli {

namespace {

struct Options {
  bool measure = false;
  bool json = false;
  std::string disk_file;
};

void print_links(const device::LinkTable& links) {
  std::vector<std::vector<std::string>> rows{{"link", "GB/s", "pageable GB/s", "latency"}};
  for (const auto& link : links.links)
    rows.push_back({link.from + " -> " + link.to, fmt::format("{:.1f}", link.gbps),
                    link.pageable_gbps > 0 ? fmt::format("{:.1f}", link.pageable_gbps) : "",
                    fmt::format("{:.0f} us", link.latency_s * 1e6)});
  rows.push_back({"RAM (copy)", fmt::format("{:.1f}", links.cpu_memory_gbps), "", ""});
  if (links.disk_gbps)
    rows.push_back({"disk -> cpu", fmt::format("{:.2f}", *links.disk_gbps), "", ""});
  std::cout << '\n' << format_table(rows, {1, 2, 3});
}

int list(const Options& options) {
  auto devices = device::list_devices();
  auto links = device::load_links(device::default_link_file());
  if (options.measure) {
    device::MeasureOptions measure;
    measure.disk_file = options.disk_file;
    links = device::measure(measure);
    device::save(*links, device::default_link_file());
  }
  if (options.json) {
    std::cout << as_json(devices, links).dump(2) << '\n';
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"device", "memory", "free", "what"}};
  for (const auto& info : devices)
    rows.push_back({info.name, human_bytes(static_cast<double>(info.total_bytes)),
                    human_bytes(static_cast<double>(info.free_bytes)), info.description});
  std::cout << format_table(rows, {1, 2});
  if (links)
    print_links(*links);
  else
    std::cout << "\nlink speeds: not measured yet (distorch devices --measure does it once and "
                 "remembers)\n";
  return 0;
}

}  // namespace

void add_devices_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("devices", "What there is to compute on: memory, link speeds");
  command->fallthrough();
  command->add_flag("--measure", options->measure,
                    "Time the links with real copies and remember the result");
  command
      ->add_option("--disk-file", options->disk_file,
                   "With --measure: also time reading this (large) file from disk")
      ->check(CLI::ExistingFile);
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &chosen] { chosen = [options] { return list(*options); }; });
}

}  // namespace distorch::cli
