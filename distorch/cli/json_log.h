#pragma once

namespace distorch::cli {

/// From now on each message on standard error is one JSON object on a line of its own:
/// {"time": ISO 8601 in UTC with milliseconds, "level": "info", "message": "..."}.
void log_as_json();

}  // namespace distorch::cli
