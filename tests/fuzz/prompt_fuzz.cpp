// Bodies from strangers for every route about prompts, with nodes whose inputs have all kinds of
// types: the validator and what is kept of a prompt. An answer that is no fault of ours, whose text
// is JSON, whatever the body. The first byte picks the route.
#include <array>
#include <cstdlib>
#include <string>

#include "tests/server/prompt_server.h"

using namespace distorch::server;
using distorch::server::testing::PromptServer;

namespace {

struct Target {
  Method method;
  const char* path;
};

constexpr std::array kTargets = {Target{Method::Post, "/prompt"},
                                 Target{Method::Post, "/queue"},
                                 Target{Method::Post, "/history"},
                                 Target{Method::Post, "/interrupt"},
                                 Target{Method::Post, "/free"},
                                 Target{Method::Post, "/api/jobs/cancel"},
                                 Target{Method::Get, "/api/jobs?"},
                                 Target{Method::Get, "/history?"},
                                 Target{Method::Get, "/history/"},
                                 Target{Method::Get, "/api/jobs/"},
                                 Target{Method::Post, "/api/jobs/cancel/"}};

void look_at(const distorch::server::testing::Answer& answer) {
  if (answer.status >= 500 || answer.status < 200) std::abort();
  if (!answer.body.empty() && !Json::accept(answer.body)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static PromptServer server;
  if (size == 0) return 0;
  const Target& target = kTargets[data[0] % kTargets.size()];
  std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (target.method == Method::Get) {
    look_at(server.send(target.method, target.path + rest));
  } else {
    look_at(server.send(target.method, target.path, rest));
    look_at(server.get("/queue"));
    look_at(server.get("/api/jobs"));
  }
  server.prompts->queue.clear();
  server.messages.clear();
  return 0;
}
