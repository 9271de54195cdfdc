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

/// The events of one run as messages to the client that posted the prompt. Those of a prompt without
/// a client have its id as their address: no socket has it, but who watches the job (JobFeed) hears
/// them on their way; an interruption without an owner goes to all. Previews become pictures in frames:
/// kind 4 before the `progress` of their step where the client said that it understands it, else
/// kind 1 after it. Pictures that are results (media::SentPicture) go the same way, whole and as
/// PNG; texts that nodes show while they run become frames of kind 3. Who watches a job that another
/// client posted gets its pictures as kind 4, whatever that client understands.
class RunMessages final : public graph::EventSink {
 public:
  /// `client`: "" where the prompt was posted without one.
  RunMessages(Messages& messages, Metrics& metrics, std::string job, std::string client,
              PreviewRules previews);

  void send(const graph::Event& event) override;
  /// The node that runs, as the page shows it; nothing before the first and after the last.
  std::optional<std::string> current_node() const;
  const std::string& client() const { return client_; }

 private:
  void send_preview(const graph::Preview& preview);
  bool understands_metadata(const std::string& address) const;
  /// Whom messages go to: the client, or the job where there is none.
  const std::string& address() const { return client_.empty() ? job_ : client_; }

  Messages& messages_;
  Metrics& metrics_;
  const std::string job_, client_;
  PreviewRules previews_;
  std::string waiting_preview_;  // payload of kind 1, until the progress was sent
  mutable std::mutex mutex_;
  std::optional<std::string> current_node_;
};

}  // namespace distorch::server
