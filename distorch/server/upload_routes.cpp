#include "distorch/server/upload_routes.h"

#include <fmt/format.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/graph/json_text.h"
#include "distorch/media/png.h"
#include "distorch/server/annotated_name.h"
#include "distorch/server/answers.h"
#include "distorch/server/confined_path.h"
#include "distorch/server/decoded_picture.h"
#include "distorch/server/multipart.h"
#include "distorch/server/stored_file.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

/// What a form asks for beside the picture itself.
struct Upload {
  const FormPart* picture = nullptr;
  FileAddress address;
  fs::path file;
  bool overwrite = false;
};

Upload read_upload(const std::vector<FormPart>& form, const FileFolders& folders) {
  Upload upload;
  upload.picture = part_of(form, "image");
  if (!upload.picture || !upload.picture->filename || upload.picture->filename->empty())
    throw Error(ErrorKind::Usage, "image", "is missing: a part of this name with a file is wanted");
  upload.address.name = *upload.picture->filename;
  upload.address.subfolder = text_of(form, "subfolder");
  upload.address.type = text_of(form, "type", "input");
  upload.file = place_of(upload.address, folders);
  auto overwrite = text_of(form, "overwrite");
  upload.overwrite = overwrite == "true" || overwrite == "1";
  return upload;
}

Response stored_answer(const Upload& upload, const std::string& name) {
  return Response::json(
      Json{{"name", name}, {"subfolder", upload.address.subfolder}, {"type", upload.address.type}});
}

Response upload_image(const Request& request, const FileFolders& folders) {
  auto form = read_form(request.content(), request.header("content-type"));
  auto upload = read_upload(form, folders);
  return stored_answer(upload, store_file(upload.file, upload.address.name, upload.picture->content,
                                          upload.overwrite));
}

/// {"filename", "subfolder", "type"} of the picture that a mask belongs to.
FileAddress original_of(const std::vector<FormPart>& form) {
  auto wrong = [](const std::string& what) {
    return Error(ErrorKind::Usage, "original_ref",
                 what + R"(; {"filename": ..., "subfolder": ..., "type": ...} is wanted)");
  };
  const auto* part = part_of(form, "original_ref");
  if (!part) throw wrong("is missing");
  graph::JsonLimits limits;
  limits.bytes = 1 << 16;
  limits.depth = 8;
  Json reference;
  try {
    reference = graph::parse_json(part->content, "original_ref", limits);
  } catch (const Error& error) {
    throw Error(ErrorKind::Usage, "original_ref", error.sentence());
  }
  auto text = [&](const char* key, const char* otherwise) -> std::string {
    auto at = reference.find(key);
    if (at == reference.end() || at->is_null()) return otherwise;
    if (!at->is_string()) throw wrong(fmt::format("has a '{}' that is no text", key));
    return at->get<std::string>();
  };
  if (!reference.is_object()) throw wrong("is no object");
  auto named = annotated_name(text("filename", ""));
  return {named.name, text("subfolder", ""),
          named.type.empty() ? text("type", "output") : named.type};
}

/// The original's colours with the mask's alpha, as a PNG with the original's texts.
std::string masked(const fs::path& original, std::string_view mask_bytes) {
  auto bytes = read_file(original, std::size_t{1} << 30);
  auto where = original.filename().string();
  auto picture = decoded_picture(bytes, where);
  auto mask = decoded_picture(mask_bytes, "image");
  if (mask.width != picture.width || mask.height != picture.height)
    throw Error(ErrorKind::Usage, "image",
                fmt::format("has {} x {} pixels, but the original '{}' has {} x {}", mask.width,
                            mask.height, where, picture.width, picture.height));
  auto result = media::blank_image(picture.width, picture.height, 4);
  for (std::size_t i = 0; i < result.pixels.size() / 4; ++i) {
    for (int c = 0; c < 3; ++c)
      result.pixels[4 * i + c] =
          picture.pixels[i * picture.channels + (picture.channels == 1 ? 0 : c)];
    result.pixels[4 * i + 3] = mask.channels == 4 ? mask.pixels[4 * i + 3] : 255;
  }
  media::PngOptions options;
  if (media::is_png(bytes)) options.texts = media::png_texts(bytes, where);
  return media::encode_png(result, options);
}

Response upload_mask(const Request& request, const FileFolders& folders) {
  auto form = read_form(request.content(), request.header("content-type"));
  auto upload = read_upload(form, folders);
  auto address = original_of(form);
  fs::path original;
  try {
    original = place_of(address, folders);
  } catch (const Error& error) {
    return refusal(error.where() == "subfolder" ? 403 : 400, error);
  }
  std::error_code ignored;
  if (!fs::is_regular_file(original, ignored))
    return refusal(404, "original_ref: there is no file '" + address.name + "' in the " +
                            address.type + " folder");
  return stored_answer(upload,
                       store_file(upload.file, upload.address.name,
                                  masked(original, upload.picture->content), upload.overwrite));
}

}  // namespace

void add_upload_routes(Router& router, UploadState& state) {
  router.add(
      {.method = Method::Post,
       .pattern = "/upload/image",
       .summary = "Stores a file in the input, output or temp folder.",
       .handler = [&](const Request& request) { return upload_image(request, state.folders); }});
  router.add(
      {.method = Method::Post,
       .pattern = "/upload/mask",
       .summary = "Stores a picture of those folders with the alpha of the posted one.",
       .handler = [&](const Request& request) { return upload_mask(request, state.folders); }});
}

}  // namespace distorch::server
