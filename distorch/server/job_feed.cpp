#include "distorch/server/job_feed.h"

#include <utility>

#include "distorch/graph/json_text.h"
#include "distorch/server/preview_frame.h"

namespace distorch::server {

namespace {

std::string text_in(const Json& object, const char* key) {
  if (!object.is_object()) return "";
  auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// The picture of a frame with metadata; nothing where it is none.
std::optional<JobFeed::Picture> picture_in(const std::string& payload) {
  constexpr std::size_t kHead = 4;
  if (payload.size() < kHead) return {};
  std::size_t length = 0;
  for (std::size_t i = 0; i < kHead; ++i)
    length = length << 8 | static_cast<unsigned char>(payload[i]);
  if (length > payload.size() - kHead) return {};
  auto about = graph::parse_json(payload.substr(kHead, length), "preview");
  return JobFeed::Picture{text_in(about, "node_id"), text_in(about, "image_type"),
                          payload.substr(kHead + length)};
}

}  // namespace

void JobFeed::send(const std::string& client, const std::string& type, const Json& data) {
  clients_.send(client, type, data);
  note(type, data);
  // A status tells of any change of the queue: positions, ends.
  wake(type == "status" ? "" : text_in(data, "prompt_id"));
}

void JobFeed::note(const std::string& type, const Json& data) {
  auto job = text_in(data, "prompt_id");
  if (job.empty()) return;
  std::lock_guard lock(mutex_);
  if (type == "execution_start") {
    live_ = {};
    live_.job = job;
    live_.started_ms = data.value("timestamp", std::int64_t{0});
  }
  if (live_.job != job) return;
  if (type == "execution_cached" && data.contains("nodes")) {
    live_.cached = data["nodes"].get<std::vector<std::string>>();
  } else if (type == "progress_state" && data.contains("nodes")) {
    live_.nodes = data["nodes"];
  } else if (type == "executing") {
    live_.running = text_in(data, "node");
  } else if (type == "executed" && data.contains("output") && data["output"].is_object()) {
    live_.outputs[text_in(data, "node")] = data["output"];
  } else if (type == "execution_success" || type == "execution_error" ||
             type == "execution_interrupted") {
    live_.running.clear();
  }
}

void JobFeed::send_binary(const std::string& client, std::uint32_t event,
                          const std::string& payload) {
  clients_.send_binary(client, event, payload);
  if (event != kPreviewWithMetadataFrame || watches() == 0) return;
  auto picture = picture_in(payload);
  if (!picture) return;
  std::string job;
  {
    std::lock_guard lock(mutex_);
    job = live_.job;
    for (auto* watch : watches_)
      if (watch->job_ == job) watch->picture_ = picture;
  }
  wake(job);
}

Json JobFeed::features_of(const std::string& client) const {
  {
    std::lock_guard lock(mutex_);
    for (const auto* watch : watches_)
      if (watch->job_ == client) return {{"supports_preview_metadata", true}};
  }
  return clients_.features_of(client);
}

std::optional<JobFeed::Live> JobFeed::live(const std::string& job) const {
  std::lock_guard lock(mutex_);
  if (live_.job != job) return {};
  return live_;
}

std::size_t JobFeed::watches() const {
  std::lock_guard lock(mutex_);
  return watches_.size();
}

void JobFeed::touch(const std::string& job) { wake(job); }

/// Those who watch a job, or all of them for "".
void JobFeed::wake(const std::string& job) {
  std::vector<std::shared_ptr<std::function<void()>>> calls;
  {
    std::lock_guard lock(mutex_);
    for (const auto* watch : watches_)
      if (watch->wake_ && (job.empty() || watch->job_ == job)) calls.push_back(watch->wake_);
  }
  for (const auto& call : calls) (*call)();
}

JobFeed::Watch::Watch(JobFeed& feed, std::string job) : feed_(feed), job_(std::move(job)) {
  std::lock_guard lock(feed_.mutex_);
  feed_.watches_.push_back(this);
}

JobFeed::Watch::~Watch() {
  std::lock_guard lock(feed_.mutex_);
  std::erase(feed_.watches_, this);
}

void JobFeed::Watch::wake_with(std::function<void()> wake) {
  auto shared = std::make_shared<std::function<void()>>(std::move(wake));
  std::lock_guard lock(feed_.mutex_);
  wake_ = std::move(shared);
}

std::optional<JobFeed::Picture> JobFeed::Watch::take_picture() {
  std::lock_guard lock(feed_.mutex_);
  return std::exchange(picture_, {});
}

}  // namespace distorch::server
