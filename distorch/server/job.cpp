#include "distorch/server/job.h"

#include <array>
#include <chrono>

#include "distorch/base/text.h"
#include "distorch/graph/json_text.h"

namespace distorch::server {

namespace {

constexpr std::array kNames = {"pending", "in_progress", "completed", "failed", "cancelled"};

bool ends_with_any(const std::string& name, std::initializer_list<const char*> endings) {
  auto small = lower(name);
  for (const char* ending : endings)
    if (small.ends_with(ending)) return true;
  return false;
}

bool is_3d(const std::string& name) {
  return ends_with_any(name, {".obj", ".fbx", ".gltf", ".glb", ".usdz"});
}

bool is_text_file(const std::string& name) { return ends_with_any(name, {".txt", ".md", ".json"}); }

std::string text_of(const Json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// An element of a node's output as a file; null for what is none.
Json as_file(const Json& item) {
  if (item.is_object()) return item;
  if (item.is_string() && is_3d(item.get<std::string>()))
    return {{"filename", item}, {"type", "output"}, {"subfolder", ""}, {"mediaType", "3d"}};
  return nullptr;
}

bool is_previewable(const std::string& kind, const Json& file) {
  for (const char* known : {"images", "video", "audio", "3d", "text"})
    if (kind == known) return true;
  auto format = text_of(file, "format");
  if (format.starts_with("video/") || format.starts_with("audio/")) return true;
  auto name = text_of(file, "filename");
  return is_3d(name) || is_text_file(name);
}

/// What a list of jobs says about the outputs of one, in the order of preference: a saved picture
/// (video, sound), another one, a text file, a text.
struct Summary {
  int count = 0, previewable = 0;
  std::array<Json, 4> choices;

  void offer(std::size_t rank, Json shown) {
    if (choices[rank].is_null()) choices[rank] = std::move(shown);
  }

  void add_text(const std::string& node, const std::string& kind, const Json& item) {
    if (kind != "text") return;
    constexpr std::size_t kLongest = 1024;
    auto text = item.is_string() ? item.get<std::string>() : graph::json_line(item);
    Json shown = {{"content", text}};
    if (text.size() > kLongest) {
      std::size_t end = kLongest;
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
      shown = {{"content", text.substr(0, end)}, {"truncated", true}};
    }
    shown["nodeId"] = node;
    shown["mediaType"] = kind;
    offer(3, std::move(shown));
  }

  void add(const std::string& node, const std::string& kind, const Json& item) {
    auto file = as_file(item);
    if (file.is_null()) return add_text(node, kind, item);
    ++count;
    if (!is_previewable(kind, file)) return;
    ++previewable;
    bool text = kind == "text" || is_text_file(text_of(file, "filename"));
    bool saved = text_of(file, "type") == "output";
    file["nodeId"] = node;
    if (!file.contains("mediaType")) file["mediaType"] = kind;
    offer(text ? 2 : saved ? 0 : 1, std::move(file));
  }
};

Summary summary_of(const Json& outputs) {
  Summary summary;
  for (const auto& [node, kinds] : outputs.items()) {
    if (!kinds.is_object()) continue;
    for (const auto& [kind, items] : kinds.items()) {
      if (kind == "animated" || !items.is_array()) continue;
      for (const auto& item : items) summary.add(node, kind, item);
    }
  }
  return summary;
}

const Json* message_of(const Outcome& outcome, const std::string& type) {
  for (const auto& message : outcome.messages)
    if (message[0] == type) return &message[1];
  return nullptr;
}

std::optional<std::int64_t> time_of(const Json* data) {
  if (!data || !data->contains("timestamp")) return {};
  return (*data)["timestamp"].get<std::int64_t>();
}

}  // namespace

const char* name_of(JobState state) { return kNames[static_cast<std::size_t>(state)]; }

std::optional<JobState> job_state(const std::string& name) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i]) return static_cast<JobState>(i);
  return {};
}

std::string Job::client() const { return text_of(extra_data, "client_id"); }

std::int64_t Job::created_ms() const {
  auto found = extra_data.find("create_time");
  return found != extra_data.end() && found->is_number() ? found->get<std::int64_t>() : 0;
}

const Json* Job::extra_pnginfo() const {
  auto found = extra_data.find("extra_pnginfo");
  return found != extra_data.end() && found->is_object() ? &*found : nullptr;
}

std::string Job::workflow_id() const {
  const auto* info = extra_pnginfo();
  if (!info) return "";
  auto workflow = info->find("workflow");
  return workflow != info->end() && workflow->is_object() ? text_of(*workflow, "id") : "";
}

std::optional<std::int64_t> Outcome::started_ms() const {
  return time_of(message_of(*this, "execution_start"));
}

std::optional<std::int64_t> Outcome::ended_ms() const {
  for (const char* type : {"execution_success", "execution_error", "execution_interrupted"})
    if (const auto* data = message_of(*this, type)) return time_of(data);
  return {};
}

std::int64_t now_ms() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

Outcome failure(const Job& job, const std::string& type, const std::string& sentence) {
  Outcome outcome;
  outcome.state = JobState::Failed;
  outcome.messages.push_back({"execution_error",
                              {{"prompt_id", job.id},
                               {"node_id", ""},
                               {"node_type", ""},
                               {"executed", Json::array()},
                               {"exception_message", sentence + "\n"},
                               {"exception_type", type},
                               {"traceback", Json::array()},
                               {"current_inputs", Json::object()},
                               {"current_outputs", Json::array()},
                               {"timestamp", now_ms()}}});
  return outcome;
}

Json queue_item(const Job& job) {
  return Json::array({job.number, job.id, job.prompt, job.extra_data, job.outputs});
}

Json history_status(const Outcome& outcome) {
  bool good = outcome.state == JobState::Completed;
  return {{"status_str", good ? "success" : "error"},
          {"completed", good},
          {"messages", outcome.messages}};
}

Json job_entry(const Job& job, JobState state) {
  Json entry = {{"id", job.id},           {"status", name_of(state)},
                {"priority", job.number}, {"create_time", job.created_ms()},
                {"outputs_count", 0},     {"previewable_outputs_count", 0}};
  if (auto workflow = job.workflow_id(); !workflow.empty()) entry["workflow_id"] = workflow;
  return entry;
}

Json job_entry(const Job& job, const Outcome& outcome) {
  auto entry = job_entry(job, outcome.state);
  if (auto started = outcome.started_ms()) entry["execution_start_time"] = *started;
  if (auto ended = outcome.ended_ms()) entry["execution_end_time"] = *ended;
  if (const auto* error = message_of(outcome, "execution_error")) entry["execution_error"] = *error;
  auto summary = summary_of(outcome.outputs);
  entry["outputs_count"] = summary.count;
  entry["previewable_outputs_count"] = summary.previewable;
  for (auto& choice : summary.choices) {
    if (choice.is_null()) continue;
    entry["preview_output"] = std::move(choice);
    break;
  }
  return entry;
}

Json normal_outputs(const Json& outputs) {
  Json normal = outputs;
  for (auto& [node, kinds] : normal.items()) {
    if (!kinds.is_object()) continue;
    for (auto& [kind, items] : kinds.items()) {
      if (kind == "animated" || !items.is_array()) continue;
      Json kept = Json::array();
      for (auto& item : items) {
        if (item.is_null()) continue;
        auto file = as_file(item);
        kept.push_back(file.is_null() ? std::move(item) : std::move(file));
      }
      items = std::move(kept);
    }
  }
  return normal;
}

}  // namespace distorch::server
