#pragma once
#include <filesystem>
#include <functional>

namespace distorch::bench {

/// Runs `call` so many times under torch's profiler and writes which kernels took how long: a JSON
/// list of {name, calls, seconds}, both of one call, the longest first. Needs a GPU.
void write_kernels(const std::filesystem::path& path, int calls, const std::function<void()>& call);

}  // namespace distorch::bench
