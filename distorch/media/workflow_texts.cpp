#include "distorch/media/workflow_texts.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/read_image.h"
#include "distorch/media/video_reader.h"
#include "distorch/media/webp.h"

namespace distorch::media {

namespace {

void take(WorkflowTexts& found, std::string_view keyword, std::string_view value) {
  if (keyword == "prompt") found.prompt = value;
  if (keyword == "workflow") found.workflow = value;
}

using Json = nlohmann::ordered_json;

/// A value of the comment as text. Deeper than workflows are it is not read: who made the file is
/// not known.
std::optional<std::string> text_of(const Json& comment, const char* key) {
  auto found = comment.find(key);
  if (found == comment.end()) return {};
  return found->is_string() ? found->get<std::string>() : found->dump();
}

void take_comment(WorkflowTexts& found, const std::string& comment) {
  constexpr int deepest = 200;
  if (!comment.starts_with("{")) return;
  bool too_deep = false;
  auto watch = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > deepest;
    return depth <= deepest;
  };
  auto json = Json::parse(comment, watch, false);
  if (!json.is_object() || too_deep) return;
  if (!found.prompt) found.prompt = text_of(json, "prompt");
  if (!found.workflow) found.workflow = text_of(json, "workflow");
}

WorkflowTexts texts_of(const VideoReader& video) {
  WorkflowTexts found;
  for (const auto& text : video.facts().texts) take(found, text.keyword, text.value);
  for (const auto& text : video.facts().texts)
    if (text.keyword == "comment") take_comment(found, text.value);
  return found;
}

}  // namespace

bool begins_as_video(std::string_view bytes) {
  auto at = [&](std::size_t place, std::string_view mark) {
    return bytes.size() >= place + mark.size() && bytes.substr(place, mark.size()) == mark;
  };
  bool picture = at(8, "avif") || at(8, "avis") || at(8, "heic") || at(8, "mif1");
  return (at(4, "ftyp") && !picture) || at(0, "\x1a\x45\xdf\xa3") ||
         (at(0, "RIFF") && at(8, "AVI ")) || at(0, "OggS") || at(0, "fLaC") || at(0, "ID3");
}

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
  } else if (begins_as_video(bytes)) {
    return texts_of(VideoReader(std::string(bytes), where));
  } else {
    throw Error(ErrorKind::Format, where,
                "is no picture or video that can carry a workflow (PNG, WebP, JPEG, MP4, WebM)");
  }
  return found;
}

WorkflowTexts workflow_texts(const std::filesystem::path& path) {
  char head[16] = {};
  std::ifstream in(path, std::ios::binary);
  in.read(head, sizeof head);
  std::string_view begin(head, static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  // Of a video the tags alone are read.
  if (begins_as_video(begin)) return texts_of(VideoReader(path));
  return workflow_texts_in(read_file(path, std::size_t{1} << 30), path.string());
}

}  // namespace distorch::media
