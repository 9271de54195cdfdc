#pragma once
#include <mutex>
#include <optional>
#include <string>

#include "distorch/graph/events.h"
#include "distorch/server/messages.h"
#include "distorch/server/metrics.h"

namespace distorch::server {

struct PreviewRules {
  /// Pixels of a preview's longer side.
  int side = 512;
  /// Also to clients that did not say that they understand them: some take every picture on the
  /// socket for a result. Else to these only where the prompt asks for previews.
  bool to_all = true;
};

/// The events of one run as messages to the client that posted the prompt; what nobody waits for is
/// not sent, but an interruption without an owner goes to all. Previews become pictures in frames:
/// kind 4 before the `progress` of their step where the client said that it understands it, else
/// kind 1 after it. Pictures that are results (media::SentPicture) go the same way, whole and as
/// PNG; texts that nodes show while they run become frames of kind 3.
class RunMessages final : public graph::EventSink {
 public:
  RunMessages(Messages& messages, Metrics& metrics, std::string client, PreviewRules previews);

  void send(const graph::Event& event) override;
  /// The node that runs, as the page shows it; nothing before the first and after the last.
  std::optional<std::string> current_node() const;
  const std::string& client() const { return client_; }

 private:
  void send_preview(const graph::Preview& preview);
  bool understands_metadata() const;

  Messages& messages_;
  Metrics& metrics_;
  std::string client_;
  PreviewRules previews_;
  std::string waiting_preview_;  // payload of kind 1, until the progress was sent
  mutable std::mutex mutex_;
  std::optional<std::string> current_node_;
};

}  // namespace distorch::server
