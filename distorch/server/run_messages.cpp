#include "distorch/server/run_messages.h"

#include <utility>

#include "distorch/server/preview_frame.h"

namespace distorch::server {

RunMessages::RunMessages(Messages& messages, Metrics& metrics, std::string client, int preview_side)
    : messages_(messages),
      metrics_(metrics),
      client_(std::move(client)),
      preview_side_(preview_side) {}

void RunMessages::send(const graph::Event& event) {
  metrics_.count(event);
  if (const auto* preview = std::get_if<graph::Preview>(&event)) return send_preview(*preview);
  if (const auto* executing = std::get_if<graph::Executing>(&event)) {
    std::lock_guard lock(mutex_);
    current_node_ = executing->node ? std::optional(executing->display_node) : std::nullopt;
  }
  bool to_all = client_.empty() && std::holds_alternative<graph::ExecutionInterrupted>(event);
  if (client_.empty() && !to_all) return;
  auto json = graph::to_json(event);
  messages_.send(client_, json["type"].get<std::string>(), json["data"]);
  if (std::holds_alternative<graph::Progress>(event) && !waiting_preview_.empty())
    messages_.send_binary(client_, kPreviewFrame, std::exchange(waiting_preview_, {}));
}

void RunMessages::send_preview(const graph::Preview& preview) {
  if (client_.empty() || !preview.image.is<media::Image>()) return;
  auto encoded = encode_preview(preview.image.as<media::Image>(), preview_side_);
  auto features = messages_.features_of(client_);
  auto flag = features.is_object() ? features.find("supports_preview_metadata") : features.end();
  if (features.is_object() && flag != features.end() && *flag == true)
    messages_.send_binary(client_, kPreviewWithMetadataFrame, preview_payload(encoded, preview));
  else
    waiting_preview_ = preview_payload(encoded);
}

std::optional<std::string> RunMessages::current_node() const {
  std::lock_guard lock(mutex_);
  return current_node_;
}

}  // namespace distorch::server
