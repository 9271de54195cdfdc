// The page with the few answers that it needs to open, for the browser test of listener, sockets
// and static files alone. Prints its address and serves until standard input ends.
#include <cstdio>
#include <iostream>

#include "distorch/server/listener.h"
#include "distorch/server/sockets.h"
#include "distorch/server/static_files.h"

namespace {

using namespace distorch::server;

class Greeter : public SocketListener {
 public:
  explicit Greeter(Messages& messages) : messages_(messages) {}
  void on_open(const std::string& client) override {
    messages_.send(client, "status",
                   {{"status", {{"exec_info", {{"queue_remaining", 0}}}}}, {"sid", client}});
  }
  void on_text(const std::string&, const std::string&) override {}
  void on_close(const std::string&) override {}

 private:
  Messages& messages_;
};

void add_answer(Router& router, const std::string& pattern, Json answer) {
  router.add({.pattern = pattern, .handler = [answer = std::move(answer)](const Request&) {
                return Response::json(answer);
              }});
}

void add_answers(Router& router) {
  add_answer(router, "/users", {{"storage", "server"}, {"migrated", true}});
  add_answer(router, "/settings", {{"Comfy.TutorialCompleted", true}});
  add_answer(router, "/extensions", Json::array());
  add_answer(router, "/object_info", Json::object());
  add_answer(router, "/i18n", Json::object());
  add_answer(router, "/global_subgraphs", Json::object());
  add_answer(router, "/node_replacements", Json::object());
  add_answer(router, "/experiment/models", Json::array());
  add_answer(router, "/userdata", Json::array());
  add_answer(router, "/features", {{"supports_preview_metadata", true}, {"assets", false}});
  add_answer(router, "/internal/folder_paths", Json::object());
  add_answer(router, "/system_stats",
             {{"system",
               {{"os", "linux"},
                {"comfyui_version", "0.33.0"},
                {"python_version", ""},
                {"pytorch_version", ""},
                {"argv", Json::array()},
                {"ram_total", 1},
                {"ram_free", 1}}},
              {"devices", Json::array()}});
  add_answer(router, "/jobs",
             {{"jobs", Json::array()},
              {"pagination", {{"offset", 0}, {"limit", 200}, {"total", 0}, {"has_more", false}}}});
  for (const char* pattern : {"/settings", "/settings/{id}", "/userdata/{file}"})
    router.add({.method = Method::Post, .pattern = pattern, .handler = [](const Request&) {
                  return Response::empty(200);
                }});
}

}  // namespace

int main() {
  Sockets sockets(Json{{"supports_preview_metadata", true}, {"assets", false}});
  Greeter greeter(sockets);
  sockets.set_listener(&greeter);
  PageState page(find_page_folders());
  Router router;
  add_answers(router);
  add_page_routes(router, page);
  Gate gate;
  Listener listener({.port = 0}, router, gate, &sockets);
  listener.start();
  std::cout << listener.urls().front() << std::endl;
  while (std::getchar() != EOF) {
  }
  return 0;
}
