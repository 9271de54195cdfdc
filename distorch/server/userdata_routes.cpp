#include "distorch/server/userdata_routes.h"

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/server/address.h"
#include "distorch/server/answers.h"
#include "distorch/server/confined_path.h"
#include "distorch/server/file_types.h"
#include "distorch/server/user_files.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

constexpr int kUnknownUser = 401;
constexpr int kOutside = 403;

Response unknown_user(int status) {
  return refusal(status, "the header Comfy-User names nobody that is known");
}

/// The folder of the user who asks, or nothing.
std::optional<fs::path> root_of(const Request& request, const Users& users) {
  auto id = users.of(request);
  if (!id) return {};
  return users.folder_of(*id);
}

/// A file's place; text that is still encoded is decoded once more, as the reference does.
fs::path file_of(const fs::path& root, const std::string& name) {
  return confined_file(root, percent_decoded(name));
}

void make_parent(const fs::path& file) {
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  if (error)
    throw Error(ErrorKind::Usage, file.parent_path().filename().string(),
                "cannot be made a folder: " + error.message());
}

/// What POST answers about a file: its path, or all about it.
Json told(const Request& request, const fs::path& file, const fs::path& root) {
  if (is_true(request, "full_info")) return file_info(file, root);
  return file.lexically_relative(root).generic_string();
}

bool may_overwrite(const Request& request) { return query_text(request, "overwrite") != "false"; }

Json shown(const fs::path& file, const fs::path& base, const Request& request) {
  if (is_true(request, "full_info")) return file_info(file, base);
  auto relative = file.lexically_relative(base);
  if (!is_true(request, "split")) return relative.generic_string();
  Json parts = Json::array({relative.generic_string()});
  for (const auto& part : relative) parts.push_back(part.string());
  return parts;
}

Response list(const Request& request, const Users& users) {
  auto name = query_text(request, "dir");
  if (name.empty()) return refusal(400, "the query lacks 'dir'");
  auto root = root_of(request, users);
  if (!root) return unknown_user(kUnknownUser);
  return or_refusal(kOutside, [&] {
    auto folder = confined_path(*root, percent_decoded(name));
    std::error_code ignored;
    if (!fs::exists(folder, ignored)) return refusal(404, "there is no folder '" + name + "'");
    Json all = Json::array();
    for (const auto& file : files_below(folder, *root, is_true(request, "recurse")))
      all.push_back(shown(file, folder, request));
    return Response::json(all);
  });
}

Response list_tree(const Request& request, const Users& users) {
  auto root = root_of(request, users);
  if (!root) return unknown_user(403);
  auto name = percent_decoded(query_text(request, "path"));
  return or_refusal(400, [&] {
    auto folder = confined_path(*root, name);
    std::error_code ignored;
    bool there = fs::exists(folder, ignored);
    if (!there && folder == *root) return Response::json(Json::array());
    if (!there) return refusal(404, "there is no folder '" + name + "'");
    if (!fs::is_directory(folder, ignored)) return refusal(400, "'" + name + "' is no folder");
    return Response::json(tree_of(folder, *root));
  });
}

Response get_file(const Request& request, const Users& users) {
  auto root = root_of(request, users);
  if (!root) return unknown_user(kUnknownUser);
  return or_refusal(kOutside, [&] {
    auto file = file_of(*root, request.parameters.at("file"));
    std::error_code ignored;
    if (!fs::is_regular_file(file, ignored))
      return refusal(404, "there is no file '" + request.parameters.at("file") + "'");
    // The one style sheet that the page itself asks for.
    if (file == *root / "user.css")
      return Response::from_file(file, "text/css")
          .with("X-Content-Type-Options", "nosniff")
          .with("Content-Disposition", "inline");
    return users_file(file, false);
  });
}

Response put_file(const Request& request, const Users& users) {
  auto root = root_of(request, users);
  if (!root) return unknown_user(kUnknownUser);
  fs::path place;
  try {
    place = file_of(*root, request.parameters.at("file"));
  } catch (const Error& error) {
    return refusal(kOutside, error);
  }
  std::error_code ignored;
  if (fs::is_directory(place, ignored))
    return refusal(400, "'" + request.parameters.at("file") + "' is a folder");
  if (!may_overwrite(request) && fs::exists(place, ignored))
    return refusal(409, "'" + request.parameters.at("file") + "' is there already");
  make_parent(place);
  AtomicFile file(place);
  file.write(request.content());
  if (may_overwrite(request))
    file.commit();
  else if (!file.commit_if_absent(place))
    return refusal(409, "'" + request.parameters.at("file") + "' is there already");
  return Response::json(told(request, place, *root));
}

Response delete_file(const Request& request, const Users& users) {
  auto root = root_of(request, users);
  if (!root) return unknown_user(kUnknownUser);
  return or_refusal(kOutside, [&] {
    auto file = file_of(*root, request.parameters.at("file"));
    std::error_code error;
    auto status = fs::symlink_status(file, error);
    if (!fs::exists(status))
      return refusal(404, "there is no file '" + request.parameters.at("file") + "'");
    if (fs::is_directory(status))
      return refusal(400, "'" + request.parameters.at("file") + "' is a folder");
    if (!fs::remove(file, error) && error)
      return refusal(
          400, "'" + request.parameters.at("file") + "' cannot be removed: " + error.message());
    return Response::empty(204);
  });
}

Response move(const Request& request, const Users& users) {
  auto root = root_of(request, users);
  if (!root) return unknown_user(kUnknownUser);
  fs::path from, to;
  try {
    from = file_of(*root, request.parameters.at("file"));
    to = file_of(*root, request.parameters.at("dest"));
  } catch (const Error& error) {
    return refusal(kOutside, error);
  }
  std::error_code ignored;
  if (!fs::exists(from, ignored))
    return refusal(404, "there is no file '" + request.parameters.at("file") + "'");
  if (fs::is_directory(to, ignored))
    return refusal(409, "'" + request.parameters.at("dest") + "' is a folder");
  make_parent(to);
  if (!move_file(from, to, may_overwrite(request)))
    return refusal(409, "'" + request.parameters.at("dest") + "' is there already");
  return Response::json(told(request, to, *root));
}

Response get_users(const Request&, const Users& users) {
  if (users.several()) return Response::json(Json{{"storage", "server"}, {"users", users.all()}});
  std::error_code ignored;
  bool there = fs::exists(users.folder_of("default"), ignored);
  return Response::json(Json{{"storage", "server"}, {"migrated", there}});
}

Response post_user(const Request& request, Users& users) {
  auto body = request.json();
  auto name = body.is_object() ? body.find("username") : body.end();
  if (name == body.end() || !name->is_string())
    return refusal(400, "body: an object with the text 'username' is wanted");
  try {
    return Response::json(users.add(name->get<std::string>()));
  } catch (const Error& error) {
    // The page shows this sentence.
    return refusal(400, error.sentence());
  }
}

}  // namespace

void add_userdata_routes(Router& router, UserdataState& state) {
  auto add = [&](Method method, const char* pattern, const char* summary, auto answer) {
    router.add({.method = method,
                .pattern = pattern,
                .summary = summary,
                .handler = [&state, answer](const Request& request) {
                  return answer(request, state.users);
                }});
  };
  add(Method::Get, "/users", "Who the users are, or whether the only one has files.", get_users);
  add(Method::Post, "/users", "Adds a user, where there are several.", post_user);
  add(Method::Get, "/userdata", "The files of one of the user's folders.", list);
  add(Method::Get, "/v2/userdata", "All files and folders below one of the user's.", list_tree);
  add(Method::Get, "/userdata/{file}", "One of the user's files.", get_file);
  add(Method::Post, "/userdata/{file}", "Writes one of the user's files.", put_file);
  add(Method::Delete, "/userdata/{file}", "Removes one of the user's files.", delete_file);
  add(Method::Post, "/userdata/{file}/move/{dest}", "Gives one of the user's files another name.",
      move);
}

}  // namespace distorch::server
