#pragma once
#include <CLI/CLI.hpp>
#include <functional>

#include "distorch/graph/catalog.h"

namespace distorch::cli {

/// What a subcommand does once its options are parsed; returns the process's exit code.
using Action = std::function<int()>;
/// Adds node types to a catalog.
using MoreNodes = std::function<void(graph::Catalog&)>;

/// One subcommand a function: it declares its options on `app` and stores its action in `chosen`
/// when it is called. To add one: a file, a line here and one in main.cpp.
void add_run_command(CLI::App& app, Action& chosen);
/// `more`: node types beside those of distorch/nodes.
void add_serve_command(CLI::App& app, Action& chosen, MoreNodes more);
void add_plan_command(CLI::App& app, Action& chosen);
void add_devices_command(CLI::App& app, Action& chosen);
void add_convert_command(CLI::App& app, Action& chosen);
void add_inspect_command(CLI::App& app, Action& chosen);

}  // namespace distorch::cli
