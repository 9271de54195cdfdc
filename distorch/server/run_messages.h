#pragma once
#include <mutex>
#include <optional>
#include <string>

#include "distorch/graph/events.h"
#include "distorch/server/messages.h"
#include "distorch/server/metrics.h"

namespace distorch::server {

/// The events of one run as messages to the client that posted the prompt; what nobody waits for is
/// not sent, but an interruption without an owner goes to all. Previews become pictures in frames:
/// kind 4 before the `progress` of their step where the client said that it understands it, else
/// kind 1 after it.
class RunMessages final : public graph::EventSink {
 public:
  /// `preview_side`: pixels of a preview's longer side.
  RunMessages(Messages& messages, Metrics& metrics, std::string client, int preview_side);

  void send(const graph::Event& event) override;
  /// The node that runs, as the page shows it; nothing before the first and after the last.
  std::optional<std::string> current_node() const;
  const std::string& client() const { return client_; }

 private:
  void send_preview(const graph::Preview& preview);

  Messages& messages_;
  Metrics& metrics_;
  std::string client_;
  int preview_side_;
  std::string waiting_preview_;  // payload of kind 1, until the progress was sent
  mutable std::mutex mutex_;
  std::optional<std::string> current_node_;
};

}  // namespace distorch::server
