#include "distorch/server/file_types.h"

#include <algorithm>
#include <array>
#include <utility>

#include "distorch/base/text.h"
#include "distorch/server/answers.h"

namespace distorch::server {

namespace {

constexpr const char* kUnknown = "application/octet-stream";

using Entry = std::pair<const char*, const char*>;

constexpr std::array kTypes = {
    Entry{".png", "image/png"},
    Entry{".apng", "image/apng"},
    Entry{".jpg", "image/jpeg"},
    Entry{".jpeg", "image/jpeg"},
    Entry{".jfif", "image/jpeg"},
    Entry{".webp", "image/webp"},
    Entry{".gif", "image/gif"},
    Entry{".bmp", "image/bmp"},
    Entry{".tif", "image/tiff"},
    Entry{".tiff", "image/tiff"},
    Entry{".avif", "image/avif"},
    Entry{".heic", "image/heic"},
    Entry{".exr", "image/x-exr"},
    Entry{".hdr", "image/vnd.radiance"},
    Entry{".ico", "image/x-icon"},
    Entry{".svg", "image/svg+xml"},
    Entry{".mp4", "video/mp4"},
    Entry{".m4v", "video/mp4"},
    Entry{".webm", "video/webm"},
    Entry{".mkv", "video/x-matroska"},
    Entry{".mov", "video/quicktime"},
    Entry{".avi", "video/x-msvideo"},
    Entry{".ogv", "video/ogg"},
    Entry{".mpg", "video/mpeg"},
    Entry{".mpeg", "video/mpeg"},
    Entry{".flv", "video/x-flv"},
    Entry{".wmv", "video/x-ms-wmv"},
    Entry{".3gp", "video/3gpp"},
    Entry{".mp3", "audio/mpeg"},
    Entry{".wav", "audio/x-wav"},
    Entry{".flac", "audio/flac"},
    Entry{".ogg", "audio/ogg"},
    Entry{".opus", "audio/ogg"},
    Entry{".m4a", "audio/mp4"},
    Entry{".aac", "audio/aac"},
    Entry{".glb", "model/gltf-binary"},
    Entry{".gltf", "model/gltf+json"},
    Entry{".obj", "model/obj"},
    Entry{".stl", "model/stl"},
    Entry{".ply", "application/octet-stream"},
    Entry{".json", "application/json"},
    Entry{".txt", "text/plain"},
    Entry{".log", "text/plain"},
    Entry{".md", "text/markdown"},
    Entry{".csv", "text/csv"},
    Entry{".yaml", "application/yaml"},
    Entry{".yml", "application/yaml"},
    Entry{".zip", "application/zip"},
    Entry{".safetensors", "application/safetensors"},
    Entry{".latent", "application/octet-stream"},
    Entry{".html", "text/html"},
    Entry{".htm", "text/html"},
    Entry{".xhtml", "application/xhtml+xml"},
    Entry{".xml", "application/xml"},
    Entry{".xsl", "application/xslt+xml"},
    Entry{".js", "text/javascript"},
    Entry{".mjs", "text/javascript"},
    Entry{".css", "text/css"},
    Entry{".pdf", "application/pdf"},
};

}  // namespace

std::string type_of_name(std::string_view name) {
  auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return kUnknown;
  auto ending = lower(name.substr(dot));
  auto at = std::find_if(kTypes.begin(), kTypes.end(),
                         [&](const Entry& entry) { return ending == entry.first; });
  return at == kTypes.end() ? kUnknown : at->second;
}

bool may_run(std::string_view content_type) {
  auto type = lower(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  auto begin = type.find_first_not_of(' ');
  type = begin == std::string::npos ? "" : type.substr(begin);
  auto ends_with = [&](std::string_view ending) {
    return type.size() >= ending.size() &&
           type.compare(type.size() - ending.size(), ending.size(), ending) == 0;
  };
  auto holds = [&](const char* word) { return type.find(word) != std::string::npos; };
  return holds("html") || holds("javascript") || holds("ecmascript") || type == "text/css" ||
         ends_with("+xml") || ends_with("/xml");
}

Response users_file(const std::filesystem::path& file, bool shown) {
  auto name = file.filename().string();
  auto type = type_of_name(name);
  bool attached = !shown || may_run(type);
  if (may_run(type)) type = kUnknown;
  auto disposition =
      std::string(attached ? "attachment; " : "") + "filename=\"" + header_quoted(name) + "\"";
  return Response::from_file(file, type)
      .with("X-Content-Type-Options", "nosniff")
      .with("Content-Disposition", disposition);
}

}  // namespace distorch::server
