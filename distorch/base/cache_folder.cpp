#include "distorch/base/cache_folder.h"

#include <cstdlib>

namespace distorch {

std::filesystem::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base =
      cache && *cache ? std::filesystem::path(cache)
                      : std::filesystem::path(home && *home ? home : ".") / ".cache";
  return base / "distorch";
}

}  // namespace distorch
