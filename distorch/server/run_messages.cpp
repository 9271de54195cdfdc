#include "distorch/server/run_messages.h"

#include <utility>

#include "distorch/media/sent_picture.h"
#include "distorch/server/preview_frame.h"

namespace distorch::server {

RunMessages::RunMessages(Messages& messages, Metrics& metrics, std::string job, std::string client,
                         PreviewRules previews)
    : messages_(messages),
      metrics_(metrics),
      job_(std::move(job)),
      client_(std::move(client)),
      previews_(previews) {}

void RunMessages::send(const graph::Event& event) {
  metrics_.count(event);
  if (const auto* preview = std::get_if<graph::Preview>(&event)) return send_preview(*preview);
  if (const auto* executing = std::get_if<graph::Executing>(&event)) {
    std::lock_guard lock(mutex_);
    current_node_ = executing->node ? std::optional(executing->display_node) : std::nullopt;
  }
  bool to_all = client_.empty() && std::holds_alternative<graph::ExecutionInterrupted>(event);
  auto json = graph::to_json(event);
  messages_.send(to_all ? "" : address(), json["type"].get<std::string>(), json["data"]);
  if (std::holds_alternative<graph::Progress>(event) && !waiting_preview_.empty())
    messages_.send_binary(client_, kPreviewFrame, std::exchange(waiting_preview_, {}));
}

bool RunMessages::understands_metadata(const std::string& address) const {
  auto features = messages_.features_of(address);
  if (!features.is_object()) return false;
  auto flag = features.find("supports_preview_metadata");
  return flag != features.end() && *flag == true;
}

void RunMessages::send_preview(const graph::Preview& preview) {
  const auto& shown = preview.image;
  if (shown.is<Json>()) {
    if (auto text = shown.as<Json>(); text.is_string())
      messages_.send_binary(address(), kTextFrame,
                            text_payload(preview.node.node_id, text.get<std::string>()));
    return;
  }
  const bool with_node = understands_metadata(address());
  const bool watched = address() != job_ && !with_node && understands_metadata(job_);
  const bool result = shown.is<media::SentPicture>();
  const bool plain = !client_.empty() && !with_node && (result || previews_.to_all);
  if (!with_node && !watched && !plain) return;
  EncodedPreview encoded;
  if (result)
    encoded = encode_whole(shown.as<media::SentPicture>().image);
  else if (shown.is<media::Image>())
    encoded = encode_preview(shown.as<media::Image>(), previews_.side);
  else
    return;
  if (with_node || watched)
    messages_.send_binary(with_node ? address() : job_, kPreviewWithMetadataFrame,
                          preview_payload(encoded, preview));
  if (plain) waiting_preview_ = preview_payload(encoded);
}

std::optional<std::string> RunMessages::current_node() const {
  std::lock_guard lock(mutex_);
  return current_node_;
}

}  // namespace distorch::server
