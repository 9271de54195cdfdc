#include "distorch/media/ffmpeg/library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>
#include <vector>

#include "distorch/base/error.h"

namespace distorch::media::ffmpeg {

namespace {

namespace fs = std::filesystem;

/// Beside the program (or the library that this code is part of), or in `lib` beside its folder or
/// the one above.
std::vector<fs::path> places() {
  std::vector<fs::path> result;
  auto add = [&](const fs::path& file) {
    std::error_code failed;
    auto folder = fs::canonical(file, failed).parent_path();
    if (failed) return;
    for (const char* below : {".", "../lib", "../../lib"})
      result.push_back((folder / below / kModuleFile).lexically_normal());
  };
  add("/proc/self/exe");
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&library), &info) && info.dli_fname) add(info.dli_fname);
  return result;
}

const Library& load() {
  for (const auto& file : places()) {
    std::error_code ignored;
    if (!fs::exists(file, ignored)) continue;
    void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char* reason = dlerror();
      throw Error(ErrorKind::Usage, "video",
                  fmt::format("FFmpeg's libraries cannot be loaded ({}); tools/setup.sh installs "
                              "them, and distorch has to be built with the version that is there",
                              reason ? reason : "no reason given"));
    }
    auto entry_of = reinterpret_cast<const ModuleEntry* (*)()>(dlsym(handle, kModuleFunction));
    if (!entry_of || entry_of()->interface_number != kModuleInterface)
      throw Error(ErrorKind::Usage, file.string(), "is of another build of distorch");
    return entry_of()->library();
  }
  throw Error(ErrorKind::Usage, "video",
              fmt::format("{} is not there: build distorch with FFmpeg's packages (tools/setup.sh)",
                          kModuleFile));
}

}  // namespace

const Library& library() {
  static const Library& loaded = load();
  return loaded;
}

}  // namespace distorch::media::ffmpeg
