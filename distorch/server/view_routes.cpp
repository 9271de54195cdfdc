#include "distorch/server/view_routes.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "distorch/base/error.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"
#include "distorch/server/annotated_name.h"
#include "distorch/server/answers.h"
#include "distorch/server/decoded_picture.h"
#include "distorch/server/file_types.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

/// "webp;90", "jpeg", "webp;": format and quality, with what the reference makes of anything else.
struct Preview {
  bool jpeg = false;
  int quality = 90;
};

Preview preview_of(const std::string& text, const std::string& channel) {
  Preview preview;
  auto first = text.find(';');
  preview.jpeg = text.substr(0, first) == "jpeg" && channel.find('a') == std::string::npos;
  auto last = first == std::string::npos ? text : text.substr(text.rfind(';') + 1);
  int quality = 0;
  auto read = std::from_chars(last.data(), last.data() + last.size(), quality);
  bool number = !last.empty() && read.ptr == last.data() + last.size() && quality >= 0;
  if (number || (read.ec == std::errc::result_out_of_range && last[0] != '-'))
    preview.quality = read.ec == std::errc{} ? std::clamp(quality, 1, 100) : 100;
  return preview;
}

/// The alpha of a picture on black; opaque where it has none.
media::Image alpha_alone(const media::Image& picture) {
  auto alpha = media::blank_image(picture.width, picture.height, 4);
  for (std::size_t i = 3, j = 3; i < alpha.pixels.size(); i += 4, j += picture.channels)
    alpha.pixels[i] = picture.channels == 4 ? picture.pixels[j] : 255;
  return alpha;
}

Response picture_answer(std::string bytes, const char* type, const fs::path& file) {
  return Response::bytes(std::move(bytes), type)
      .with("X-Content-Type-Options", "nosniff")
      .with("Content-Disposition", "filename=\"" + header_quoted(file.filename().string()) + "\"");
}

Response as_preview(const fs::path& file, const std::string& wanted, const std::string& channel) {
  auto preview = preview_of(wanted, channel);
  auto picture = decoded_picture_file(file);
  if (preview.jpeg || channel == "rgb") picture = media::to_rgb(std::move(picture));
  if (preview.jpeg)
    return picture_answer(media::encode_jpeg(picture, preview.quality), "image/jpeg", file);
  auto quality = static_cast<float>(preview.quality);
  return picture_answer(media::encode_webp(picture, quality), "image/webp", file);
}

Response view(const Request& request, const FileFolders& folders) {
  auto filename = request.in_query("filename");
  if (!filename) return refusal(404, "the query lacks 'filename'");
  auto named = annotated_name(*filename);
  if (named.name.find("..") != std::string::npos)
    return refusal(400, "filename: '..' is not allowed in it");
  // Only the last part counts, as in the reference; folders go into 'subfolder'.
  std::replace(named.name.begin(), named.name.end(), '\\', '/');
  if (named.name.empty() || named.name[0] == '/')
    return refusal(400, "filename: the name of a file is wanted");
  FileAddress address;
  address.name = named.name.substr(named.name.rfind('/') + 1);
  address.subfolder = query_text(request, "subfolder");
  address.type = named.type.empty() ? request.in_query("type").value_or("output") : named.type;
  fs::path file;
  try {
    file = place_of(address, folders);
  } catch (const Error& error) {
    return refusal(error.where() == "subfolder" ? 403 : 400, error);
  }
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored))
    return refusal(404,
                   "there is no file '" + address.name + "' in the " + address.type + " folder");
  auto channel = query_text(request, "channel");
  if (auto preview = request.in_query("preview")) return as_preview(file, *preview, channel);
  // Pixels are compressed little here: the page decodes them once and throws them away.
  media::PngOptions quick;
  quick.compression = 1;
  if (channel == "rgb") {
    auto picture = media::to_rgb(decoded_picture_file(file));
    return picture_answer(media::encode_png(picture, quick), "image/png", file);
  }
  if (channel == "a") {
    auto picture = alpha_alone(decoded_picture_file(file));
    return picture_answer(media::encode_png(picture, quick), "image/png", file);
  }
  return users_file(file, true);
}

Response view_metadata(const Request& request, const ModelPlaces& models) {
  auto folder = request.parameters.at("folder");
  auto name = query_text(request, "filename");
  const std::string ending = ".safetensors";
  if (name.size() < ending.size() ||
      name.compare(name.size() - ending.size(), ending.size(), ending) != 0)
    return refusal(404, "filename: the name of a .safetensors file is wanted");
  if (name.find('\0') != std::string::npos) return refusal(404, "filename: holds a zero byte");
  auto file = models.find(folder, name);
  if (!file) return refusal(404, "there is no '" + name + "' among the " + folder);
  auto metadata = safetensors_metadata(*file, std::size_t{1} << 20);
  if (!metadata) return refusal(404, "'" + name + "' says nothing about itself");
  return Response::json(*metadata);
}

}  // namespace

std::optional<Json> safetensors_metadata(const fs::path& file, std::size_t limit_bytes) {
  std::ifstream in(file, std::ios::binary);
  unsigned char head[8];
  if (!in.read(reinterpret_cast<char*>(head), sizeof head)) return {};
  std::uint64_t length = 0;
  for (int i = 8; i-- > 0;) length = length << 8 | head[i];
  if (length > limit_bytes) return {};
  std::string text(length, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(length))) return {};
  // The tensors, which may be many thousands, are dropped while they are read; so is what is nested
  // deeper than metadata can be.
  auto keep = [](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::key && depth == 1) return value == "__metadata__";
    return depth <= 2;
  };
  auto header = Json::parse(text, keep, false);
  if (!header.is_object()) return {};
  auto at = header.find("__metadata__");
  if (at == header.end() || !at->is_object()) return {};
  return *at;
}

void add_view_routes(Router& router, ViewState& state) {
  router.add({.method = Method::Get,
              .pattern = "/view",
              .summary = "A file of the input, output or temp folder, as it is or re-encoded.",
              .handler = [&](const Request& request) { return view(request, state.folders); }});
  router.add(
      {.method = Method::Get,
       .pattern = "/view_metadata/{folder}",
       .summary = "What a safetensors file of a model folder says about itself.",
       .handler = [&](const Request& request) { return view_metadata(request, state.models); }});
}

}  // namespace distorch::server
