// Forms from strangers: parts that lie inside the body, or Error(Usage). The first line is the
// content type.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/server/multipart.h"

using namespace distorch::server;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto line = text.substr(0, text.find('\n'));
  auto body = text.substr(std::min(line.size() + 1, text.size()));
  auto type = "multipart/form-data; boundary=" + std::string(line);
  for (const auto& content_type : {std::string(line), type}) {
    try {
      auto form = read_form(body, content_type);
      if (form.size() > 64) std::abort();
      for (const auto& part : form) {
        if (part.content.empty()) continue;
        bool inside = part.content.data() >= body.data() &&
                      part.content.data() + part.content.size() <= body.data() + body.size();
        if (!inside) std::abort();
      }
    } catch (const distorch::Error& error) {
      if (error.kind() != distorch::ErrorKind::Usage) std::abort();
    }
  }
  return 0;
}
