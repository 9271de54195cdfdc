#include "distorch/server/models_routes.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/text.h"
#include "distorch/media/webp.h"
#include "distorch/server/answers.h"
#include "distorch/server/confined_path.h"
#include "distorch/server/decoded_picture.h"
#include "distorch/server/model_pictures.h"
#include "distorch/server/user_files.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

bool is_type(const ModelPlaces& models, const std::string& type) {
  auto types = models.types();
  return std::find(types.begin(), types.end(), type) != types.end();
}

Response unknown_type(const std::string& type) {
  return refusal(404, "there is no model folder '" + type + "'");
}

bool is_hidden(const fs::path& path) { return path.filename().string().rfind('.', 0) == 0; }

/// The model files of one place with all that lies below it; links are followed, each folder once.
class Listing {
 public:
  Listing(Json& all, std::size_t index, const std::vector<std::string>& extensions)
      : all_(all), index_(index), extensions_(extensions) {}

  void read(const fs::path& root) {
    std::vector<fs::path> waiting = {root};
    while (!waiting.empty()) {
      auto folder = std::move(waiting.back());
      waiting.pop_back();
      std::error_code error;
      auto real = fs::canonical(folder, error);
      if (error || !seen_.insert(real).second) continue;
      for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
           entry.increment(error)) {
        std::error_code ignored;
        if (is_hidden(entry->path())) continue;
        if (entry->is_directory(ignored))
          waiting.push_back(entry->path());
        else if (entry->is_regular_file(ignored) && wanted(entry->path()))
          add(entry->path(), root);
      }
    }
  }

 private:
  bool wanted(const fs::path& file) const {
    auto ending = lower(file.extension().string());
    return extensions_.empty() ||
           std::find(extensions_.begin(), extensions_.end(), ending) != extensions_.end();
  }

  void add(const fs::path& file, const fs::path& root) {
    std::error_code error;
    auto size = fs::file_size(file, error);
    if (error) return;
    auto times = times_of(file);
    all_.push_back({{"name", file.lexically_relative(root).generic_string()},
                    {"pathIndex", index_},
                    {"modified", times.modified},
                    {"created", times.changed},
                    {"size", size}});
  }

  Json& all_;
  std::size_t index_;
  const std::vector<std::string>& extensions_;
  std::set<fs::path> seen_;
};

Response list_types(const Request&, const ModelPlaces& models) {
  return Response::json(models.types());
}

Response list_files(const Request& request, const ModelPlaces& models) {
  const auto& type = request.parameters.at("folder");
  if (!is_type(models, type)) return unknown_type(type);
  return Response::json(models.files(type));
}

Response list_embeddings(const Request&, const ModelPlaces& models) {
  Json names = Json::array();
  for (const auto& name : models.files("embeddings"))
    names.push_back(fs::path(name).replace_extension().generic_string());
  return Response::json(names);
}

Response list_folders(const Request&, const ModelPlaces& models) {
  Json all = Json::array();
  for (const auto& type : models.types()) {
    if (type == "configs" || type == "custom_nodes") continue;
    Json folders = Json::array();
    for (const auto& folder : models.folders(type))
      folders.push_back(fs::absolute(folder).lexically_normal().string());
    all.push_back({{"name", type}, {"folders", folders}, {"extensions", models.extensions(type)}});
  }
  return Response::json(all);
}

Response list_files_with_sizes(const Request& request, const ModelPlaces& models) {
  const auto& type = request.parameters.at("folder");
  if (!is_type(models, type)) return unknown_type(type);
  auto folders = models.folders(type);
  auto extensions = models.extensions(type);
  Json all = Json::array();
  for (std::size_t i = 0; i < folders.size(); ++i) Listing(all, i, extensions).read(folders[i]);
  std::stable_sort(all.begin(), all.end(), [](const Json& a, const Json& b) {
    if (a["pathIndex"] != b["pathIndex"]) return a["pathIndex"] < b["pathIndex"];
    return a["name"] < b["name"];
  });
  return Response::json(all);
}

Response picture(const Request& request, const ModelPlaces& models) {
  const auto& type = request.parameters.at("folder");
  const auto& text = request.parameters.at("index");
  const auto& name = request.parameters.at("file");
  if (!is_type(models, type)) return unknown_type(type);
  if (name.empty()) return refusal(400, "the name of a model file is wanted");
  std::size_t index = 0;
  auto read = std::from_chars(text.data(), text.data() + text.size(), index);
  if (read.ec != std::errc{} || read.ptr != text.data() + text.size())
    return refusal(400, "'" + text + "' is no number of a folder");
  auto folders = models.folders(type);
  if (index >= folders.size())
    return refusal(404, "there is no folder " + text + " of the " + type);
  return or_refusal(403, [&] {
    auto relative = relative_name(name);
    auto found = picture_of_model(folders[index] / relative, folders[index]);
    if (!found) return refusal(404, "'" + name + "' has no picture");
    return Response::bytes(media::encode_webp(decoded_picture(*found, name), 80), "image/webp");
  });
}

}  // namespace

void add_models_routes(Router& router, ModelsState& state) {
  auto add = [&](const char* pattern, const char* summary, auto answer) {
    router.add({.method = Method::Get,
                .pattern = pattern,
                .summary = summary,
                .handler = [&state, answer](const Request& request) {
                  return answer(request, state.models);
                }});
  };
  add("/models", "The names of the model folders.", list_types);
  add("/models/{folder}", "The model files of a folder.", list_files);
  add("/embeddings", "The names of the embeddings, without their endings.", list_embeddings);
  add("/experiment/models", "The model folders and where they lie.", list_folders);
  add("/experiment/models/{folder}", "The model files of a folder with their sizes and times.",
      list_files_with_sizes);
  add("/experiment/models/preview/{folder}/{index}/{file...}", "A picture of a model, as WebP.",
      picture);
}

}  // namespace distorch::server
