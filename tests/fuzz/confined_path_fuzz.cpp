// Names from strangers: a path that lies in the folder and says what the name said, or
// Error(Usage).
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/server/address.h"
#include "distorch/server/confined_path.h"

using namespace distorch::server;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::string_view name(reinterpret_cast<const char*>(data), size);
  const std::filesystem::path folder = "/nonexistent/folder";
  for (const auto& text : {std::string(name), percent_decoded(name)}) {
    try {
      auto path = confined_file(folder, text).string();
      bool sane = path.size() > folder.string().size() + 1 &&
                  path.rfind(folder.string() + "/", 0) == 0 && is_utf8(path) &&
                  path.find('\0') == std::string::npos && path.find('\\') == std::string::npos &&
                  (path + "/").find("/../") == std::string::npos;
      if (!sane) std::abort();
    } catch (const distorch::Error& error) {
      if (error.kind() != distorch::ErrorKind::Usage) std::abort();
    }
  }
  return 0;
}
