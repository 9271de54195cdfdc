#include <fmt/format.h>

#include <fstream>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/cli/machine_options.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/workflow_texts.h"

namespace distorch::cli {

namespace {

/// Videos may be large: only their tags are read.
bool begins_as_video_file(const std::string& path) {
  char head[16] = {};
  std::ifstream in(path, std::ios::binary);
  in.read(head, sizeof head);
  return media::begins_as_video({head, static_cast<std::size_t>(in.gcount())});
}

std::string from_texts(const media::WorkflowTexts& texts, const std::string& path,
                       const char* kind) {
  // What was executed is exact; the drawing would have to be converted again.
  if (texts.prompt) return *texts.prompt;
  if (texts.workflow) return *texts.workflow;
  throw Error(ErrorKind::Format, path, fmt::format("is a {} without a workflow inside", kind));
}

}  // namespace

std::string workflow_text(const std::string& path) {
  constexpr std::size_t limit = std::size_t{1}
                                << 28;  // bytes; pictures that carry a workflow are far below
  if (begins_as_video_file(path)) return from_texts(media::workflow_texts(path), path, "video");
  auto bytes = read_file(path, limit);
  auto first = bytes.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (first == std::string::npos) throw Error(ErrorKind::Format, path, "is empty");
  if (bytes[first] == '{' || bytes[first] == '[') return bytes;
  bool picture = media::is_png(bytes) || media::is_jpeg(bytes) || bytes.compare(0, 4, "RIFF") == 0;
  if (!picture)
    throw Error(ErrorKind::Format, path,
                "is neither a workflow (JSON) nor a picture or video that carries one");
  return from_texts(media::workflow_texts_in(bytes, path), path, "picture");
}

}  // namespace distorch::cli
