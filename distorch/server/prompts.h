#pragma once
#include <string>

#include "distorch/server/job_queue.h"
#include "distorch/server/log_feed.h"
#include "distorch/server/messages.h"
#include "distorch/server/metrics.h"
#include "distorch/server/prompt_runner.h"
#include "distorch/server/store.h"
#include "distorch/server/worker.h"

namespace distorch::server {

struct PromptOptions {
  StoreOptions store;
  std::size_t most_waiting = 10000;
  PreviewRules previews;
};

/// Everything that has to do with prompts, put together: what the routes for prompts, history, jobs
/// and metrics are about. Each change of the queue is told to all clients as `status`.
struct Prompts {
  Prompts(PromptRunner& runner, Messages& messages, PromptOptions options);

  PromptRunner& runner;
  Messages& messages;
  Metrics metrics;
  Store store;
  JobQueue queue;
  Worker worker;
};

/// {"status": {"exec_info": {"queue_remaining": n}}}
Json status_of(std::size_t remaining);

/// Greets each socket: the status with the client's id, and the node that its prompt is at. A client
/// that goes gets no lines of the log any more.
class Greeting final : public SocketListener {
 public:
  explicit Greeting(Prompts& prompts, LogFeed* log = nullptr) : prompts_(prompts), log_(log) {}
  void on_open(const std::string& client) override;
  void on_text(const std::string& /*client*/, const std::string& /*text*/) override {}
  void on_close(const std::string& client) override;

 private:
  Prompts& prompts_;
  LogFeed* log_;
};

}  // namespace distorch::server
