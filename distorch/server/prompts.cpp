#include "distorch/server/prompts.h"

#include <utility>

namespace distorch::server {

Prompts::Prompts(PromptRunner& engine, Messages& clients, PromptOptions options)
    : runner(engine),
      messages(clients),
      store(std::move(options.store)),
      queue(store, options.most_waiting),
      worker(queue, runner, messages, metrics, options.previews) {
  queue.on_change([this](std::size_t remaining) {
    messages.send("", "status", status_of(remaining));
    worker.queue_changed();
  });
}

Json status_of(std::size_t remaining) {
  return {{"status", {{"exec_info", {{"queue_remaining", remaining}}}}}};
}

void Greeting::on_open(const std::string& client) {
  auto status = status_of(prompts_.queue.remaining());
  status["sid"] = client;
  prompts_.messages.send(client, "status", status);
  if (auto node = prompts_.worker.running_node(client))
    prompts_.messages.send(client, "executing", {{"node", *node}});
}

void Greeting::on_close(const std::string& client) {
  if (log_) log_->unsubscribe(client);
}

}  // namespace distorch::server
