#include "distorch/server/settings_routes.h"

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/answers.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kFileLimit = std::size_t{1} << 26;  // bytes

/// The settings of one user while the state's mutex is held.
class SettingsFile {
 public:
  explicit SettingsFile(const fs::path& folder) : file_(folder / "comfy.settings.json") {
    std::error_code ignored;
    if (!fs::exists(file_, ignored)) return;
    try {
      auto read = graph::parse_json(read_file(file_, kFileLimit), file_.string());
      broken_ = !read.is_object();
      if (!broken_) values_ = std::move(read);
    } catch (const Error& error) {
      broken_ = true;
    }
    if (broken_) log::warn_once(file_.string() + " holds no JSON object; the settings start anew");
  }

  Json& values() { return values_; }

  void save() const {
    fs::create_directories(file_.parent_path());
    std::error_code ignored;
    if (broken_) fs::rename(file_, file_.string() + ".broken", ignored);
    write_file(file_, values_.dump(4, ' ', false, Json::error_handler_t::replace));
  }

 private:
  fs::path file_;
  Json values_ = Json::object();
  bool broken_ = false;
};

/// Runs `work` with the settings of the user who asks.
template <class Work>
Response with_settings(const Request& request, SettingsState& state, const Work& work) {
  auto id = state.users.of(request);
  if (!id) return refusal(401, "the header Comfy-User names nobody that is known");
  std::lock_guard lock(state.mutex);
  SettingsFile file(state.users.folder_of(*id));
  return work(file);
}

Response get_all(const Request& request, SettingsState& state) {
  return with_settings(request, state,
                       [](SettingsFile& file) { return Response::json(file.values()); });
}

Response get_one(const Request& request, SettingsState& state) {
  return with_settings(request, state, [&](SettingsFile& file) {
    auto at = file.values().find(request.parameters.at("id"));
    return Response::json(at == file.values().end() ? Json() : *at);
  });
}

Response post_all(const Request& request, SettingsState& state) {
  auto changes = request.json();
  if (!changes.is_object()) return refusal(400, "body: an object of settings by id is wanted");
  return with_settings(request, state, [&](SettingsFile& file) {
    for (auto& [id, value] : changes.items()) file.values()[id] = value;
    file.save();
    return Response::empty(200);
  });
}

Response post_one(const Request& request, SettingsState& state) {
  auto value = request.json();
  return with_settings(request, state, [&](SettingsFile& file) {
    file.values()[request.parameters.at("id")] = value;
    file.save();
    return Response::empty(200);
  });
}

}  // namespace

void add_settings_routes(Router& router, SettingsState& state) {
  auto add = [&](Method method, const char* pattern, const char* summary, auto answer) {
    router.add(
        {.method = method,
         .pattern = pattern,
         .summary = summary,
         .handler = [&state, answer](const Request& request) { return answer(request, state); }});
  };
  add(Method::Get, "/settings", "All settings of the user.", get_all);
  add(Method::Post, "/settings", "Changes several settings of the user.", post_all);
  add(Method::Get, "/settings/{id}", "One setting of the user, or null.", get_one);
  add(Method::Post, "/settings/{id}", "Changes one setting of the user.", post_one);
}

}  // namespace distorch::server
