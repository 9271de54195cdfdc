#include "distorch/media/workflow_texts.h"

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/read_image.h"
#include "distorch/media/webp.h"

namespace distorch::media {

namespace {

void take(WorkflowTexts& found, std::string_view keyword, std::string_view value) {
  if (keyword == "prompt") found.prompt = value;
  if (keyword == "workflow") found.workflow = value;
}

}  // namespace

WorkflowTexts workflow_texts_in(std::string_view bytes, const std::string& where) {
  WorkflowTexts found;
  if (is_png(bytes)) {
    for (const auto& text : png_texts(bytes, where)) take(found, text.keyword, text.value);
  } else if (is_jpeg(bytes) || is_webp(bytes)) {
    for (const auto& [tag, text] : exif_of(bytes).texts) {
      auto colon = text.find(':');
      if (colon != std::string::npos)
        take(found, std::string_view(text).substr(0, colon),
             std::string_view(text).substr(colon + 1));
    }
  } else {
    throw Error(ErrorKind::Format, where,
                "is no picture that can carry a workflow (PNG, WebP, JPEG)");
  }
  return found;
}

WorkflowTexts workflow_texts(const std::filesystem::path& path) {
  return workflow_texts_in(read_file(path, std::size_t{1} << 30), path.string());
}

}  // namespace distorch::media
