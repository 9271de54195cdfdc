#include "distorch/server/assets_routes.h"

#include "distorch/server/api_v2.h"
#include "distorch/server/file_types.h"
#include "distorch/server/multipart.h"

namespace distorch::server {

namespace {

[[noreturn]] void refuse(int status, const char* code, const std::string& sentence) {
  throw RefusedV2(status, code, sentence);
}

Json asset_json(const Asset& asset, const std::string& base) {
  return {{"id", asset.id},
          {"hash", "blake3:" + asset.hash},
          {"size_bytes", asset.size_bytes},
          {"content_type", asset.content_type},
          {"file_path", asset.path},
          {"created_at", iso_time(asset.created_ms)},
          {"url", base + "/api/v2/assets/" + asset.id + "/content"},
          {"url_expires_at", iso_time(now_ms() + kRetentionMs)}};
}

Response added_answer(JobsV2State& state, const Request& request, const Assets::Added& added) {
  auto json = asset_json(added.asset, state.jobs.base(request));
  json["created_new"] = added.created;
  return Response::json(json, added.created ? 201 : 200);
}

Response post_asset(JobsV2State& state, const Request& request) {
  std::vector<FormPart> form;
  try {
    form = read_form(request.content(), request.header("content-type"));
  } catch (const Error& error) {
    refuse(422, "invalid_request", "The body is no form with a file: " + error.sentence());
  }
  const auto* file = part_of(form, "file");
  if (!file) refuse(422, "invalid_request", "The part 'file' is missing.");
  auto path = text_of(form, "file_path");
  if (path.empty()) refuse(422, "invalid_request", "The field 'file_path' is missing.");
  auto type = text_of(form, "content_type");
  return added_answer(state, request,
                      state.assets.upload({.path = path,
                                           .content = file->content,
                                           .content_type = type.empty() ? file->content_type : type,
                                           .expected_hash = text_of(form, "expected_hash")}));
}

std::string text_in(const Json& body, const char* key, bool wanted) {
  auto found = body.find(key);
  bool absent = found == body.end() || found->is_null();
  if (absent && !wanted) return "";
  if (absent || !found->is_string() || (wanted && *found == ""))
    refuse(422, "invalid_request", std::string("'") + key + "' is to be a text.");
  return found->get<std::string>();
}

Response from_hash(JobsV2State& state, const Request& request) {
  auto asset = state.assets.by_hash(text_in(object_of(request), "hash", true));
  if (!asset) refuse(404, "blob_not_found", "There is no content of this hash.");
  return added_answer(state, request, {std::move(*asset), false});
}

Response from_path(JobsV2State& state, const Request& request) {
  auto body = object_of(request);
  auto path = text_in(body, "path", true);
  if (path[0] != '/' || path.find('\0') != std::string::npos)
    refuse(422, "invalid_request", "'path' is to be absolute.");
  return added_answer(state, request,
                      state.assets.know(path, text_in(body, "file_path", false),
                                        text_in(body, "content_type", false)));
}

Response head_by_hash(JobsV2State& state, const Request& request) {
  auto known = state.assets.by_hash(request.parameters.at("hash"));
  return Response::empty(known ? 200 : 404);
}

/// The output that the id names; refuses where there is none.
JobOutput output_of(JobsV2State& state, const std::string& id, std::string& job) {
  auto key = output_key(id);
  auto output = key ? state.jobs.output(*key) : std::nullopt;
  if (!output) refuse(404, "not_found", "There is no asset of this id.");
  job = key->job;
  return *output;
}

Response get_asset(JobsV2State& state, const Request& request) {
  const auto& id = request.parameters.at("asset_id");
  auto base = state.jobs.base(request);
  if (auto asset = state.assets.by_id(id)) return Response::json(asset_json(*asset, base));
  std::string job;
  auto found = output_of(state, id, job);
  auto output = state.jobs.output_json(job, found, base);
  return Response::json(Json{{"id", id},
                             {"hash", nullptr},
                             {"size_bytes", output["size_bytes"]},
                             {"content_type", output["content_type"]},
                             {"file_path", output["name"]},
                             {"created_at", iso_time(now_ms())},
                             {"url", base + "/api/v2/assets/" + id + "/content"},
                             {"url_expires_at", output["url_expires_at"]},
                             {"job_id", job}});
}

Response get_content(JobsV2State& state, const Request& request) {
  const auto& id = request.parameters.at("asset_id");
  std::optional<std::filesystem::path> file;
  if (auto asset = state.assets.by_id(id)) {
    file = state.assets.file_of(*asset);
  } else {
    std::string job;
    auto output = output_of(state, id, job);
    if (output.item.is_string())
      return Response::text(output.item.get<std::string>())
          .with("X-Content-Type-Options", "nosniff");
    file = state.jobs.file_of(output);
  }
  if (!file)
    refuse(404, "output_unavailable", "The asset is known, but its file is not there any more.");
  return users_file(*file, true);
}

Response delete_asset(JobsV2State& state, const Request& request) {
  if (!state.assets.forget(request.parameters.at("asset_id")))
    refuse(404, "not_found", "There is no asset of this id.");
  return Response::empty(204);
}

}  // namespace

void add_assets_routes(Router& router, JobsV2State& state) {
  auto add = [&](Method method, const char* pattern, const char* summary, auto handler) {
    router.add({method, pattern, Mount::Api, summary,
                with_envelope([&state, handler](const Request& request) {
                  return handler(state, request);
                })});
  };
  add(Method::Post, "/v2/assets", "Stores a file that workflows can name by its id.", post_asset);
  add(Method::Post, "/v2/assets/from-hash", "An asset of a content that the server has already.",
      from_hash);
  add(Method::Post, "/v2/assets/from-path",
      "An asset of a file that lies in a folder of the server.", from_path);
  add(Method::Get, "/v2/assets/by-hash/{hash}", "Whether the server has a content.", head_by_hash);
  add(Method::Get, "/v2/assets/{asset_id}", "What is known of an asset or an output.", get_asset);
  add(Method::Get, "/v2/assets/{asset_id}/content", "The bytes of an asset or an output.",
      get_content);
  add(Method::Delete, "/v2/assets/{asset_id}", "Forgets an asset; its file stays.", delete_asset);
}

}  // namespace distorch::server
