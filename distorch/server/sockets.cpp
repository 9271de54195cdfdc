#include "distorch/server/sockets.h"

#include <fmt/format.h>

#include <random>
#include <vector>

#include "distorch/base/log.h"
#include "distorch/graph/json_text.h"

namespace distorch::server {
namespace {

constexpr std::uint32_t kPreview = 1;
constexpr std::uint32_t kPreviewWithMetadata = 4;
// What a client may say.
constexpr graph::JsonLimits kTextLimits{.bytes = 1u << 20, .depth = 32, .keys_per_object = 1000};

std::string big_endian(std::uint32_t number) {
  std::string result;
  for (int shift = 24; shift >= 0; shift -= 8) result += static_cast<char>(number >> shift & 255);
  return result;
}

// Pictures as PNG are results, of which none may be left out.
bool is_preview(std::uint32_t event, const std::string& payload) {
  if (event == kPreview) return payload.starts_with(std::string("\0\0\0\1", 4));
  constexpr std::size_t longest_metadata = 2000;
  auto head = std::string_view(payload).substr(0, longest_metadata);
  return event == kPreviewWithMetadata && head.find(R"("image_type":"image/jpeg")") != head.npos;
}

// The flags in a text {"type": "feature_flags", "data": {...}}; nothing for any other text.
std::optional<Json> flags_in(const std::string& text) {
  try {
    const Json message = graph::parse_json(text, "message", kTextLimits);
    if (!message.is_object() || message.value("type", Json()) != "feature_flags")
      return std::nullopt;
    Json data = message.value("data", Json::object());
    return data.is_object() ? data : Json::object();
  } catch (const Error& error) {
    log::debug("a client's message is left out: {}", error.what());
    return std::nullopt;
  }
}

Frame text_frame(const std::string& type, const Json& data) {
  return {.bytes = std::make_shared<const std::string>(
              graph::json_line(Json{{"type", type}, {"data", data}}))};
}

}  // namespace

Sockets::Sockets(Json server_flags, SocketListener* listener)
    : server_flags_(std::move(server_flags)), listener_(listener) {}

Sockets::Links Sockets::links_to(const std::string& client) const {
  Links links;
  std::lock_guard lock(mutex_);
  if (client.empty()) {
    for (const auto& [name, entry] : clients_) links.push_back(entry.link);
  } else if (auto found = clients_.find(client); found != clients_.end()) {
    links.push_back(found->second.link);
  }
  return links;
}

void Sockets::send(const std::string& client, const std::string& type, const Json& data) {
  auto links = links_to(client);
  if (links.empty()) return;
  auto frame = text_frame(type, data);
  for (const auto& link : links) link->push(frame);
}

void Sockets::send_binary(const std::string& client, std::uint32_t event,
                          const std::string& payload) {
  auto links = links_to(client);
  if (links.empty()) return;
  Frame frame{.bytes = std::make_shared<const std::string>(big_endian(event) + payload),
              .is_text = false,
              .preview = is_preview(event, payload) ? event : 0};
  for (const auto& link : links) link->push(frame);
}

Json Sockets::features_of(const std::string& client) const {
  std::lock_guard lock(mutex_);
  auto found = clients_.find(client);
  return found == clients_.end() ? Json::object() : found->second.features;
}

void Sockets::opened(const std::string& client, std::shared_ptr<SocketLink> link) {
  // Dropped without the lock.
  std::shared_ptr<SocketLink> old;
  {
    std::lock_guard lock(mutex_);
    Client& entry = clients_[client];
    old = std::exchange(entry.link, std::move(link));
    entry.features = Json::object();
  }
  if (listener_) listener_->on_open(client);
}

bool Sockets::is_current(const std::string& client, const SocketLink* link) const {
  std::lock_guard lock(mutex_);
  auto found = clients_.find(client);
  return found != clients_.end() && found->second.link.get() == link;
}

void Sockets::received(const std::string& client, const SocketLink* link, const std::string& text) {
  if (!is_current(client, link)) return;
  if (auto flags = flags_in(text)) {
    {
      std::lock_guard lock(mutex_);
      auto found = clients_.find(client);
      if (found == clients_.end()) return;
      found->second.features = std::move(*flags);
    }
    send(client, "feature_flags", server_flags_);
    return;
  }
  if (listener_) listener_->on_text(client, text);
}

void Sockets::closed(const std::string& client, const SocketLink* link) {
  // Dropped without the lock.
  std::shared_ptr<SocketLink> old;
  {
    std::lock_guard lock(mutex_);
    auto found = clients_.find(client);
    if (found == clients_.end() || found->second.link.get() != link) return;
    old = std::move(found->second.link);
    clients_.erase(found);
  }
  if (listener_) listener_->on_close(client);
}

std::size_t Sockets::count() const {
  std::lock_guard lock(mutex_);
  return clients_.size();
}

std::string Sockets::new_client() {
  std::random_device chance;
  std::string result;
  for (int i = 0; i < 4; ++i) result += fmt::format("{:08x}", chance());
  return result;
}

}  // namespace distorch::server
