#pragma once
#include <filesystem>

namespace distorch {

/// Where results of measurements and compilations are kept between runs: $XDG_CACHE_HOME/distorch,
/// else ~/.cache/distorch. May not exist yet.
std::filesystem::path cache_folder();

}  // namespace distorch
