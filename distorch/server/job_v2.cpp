#include "distorch/server/job_v2.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/graph/json_text.h"
#include "distorch/server/annotated_name.h"
#include "distorch/server/api_v2.h"
#include "distorch/server/base64.h"
#include "distorch/server/file_types.h"

namespace distorch::server {

namespace {

/// What clients call a kind of output; nullptr for what is no output.
const char* word_for(const std::string& kind, const std::string& content_type) {
  if (content_type.starts_with("video/")) return "video";
  if (kind == "images") return "image";
  if (kind == "gifs" || kind == "video") return "video";
  if (kind == "audio") return "audio";
  if (kind == "text") return "text";
  if (kind == "latents") return "latent";
  return "file";
}

const char* status_word(const std::string& state) {
  if (state == "completed") return "succeeded";
  if (state == "failed") return "failed";
  if (state == "cancelled") return "canceled";
  return state == "in_progress" ? "running" : "queued";
}

std::string name_of(const JobOutput& output) {
  if (output.item.is_string()) return fmt::format("text_{}.txt", output.index);
  return output.item.value("filename", "");
}

/// Every field of a job, with what is true of one that waits.
Json blank_job(const std::string& id, const Json& extra_data, const std::string& base) {
  auto created = extra_data.value("create_time", std::int64_t{0});
  auto self = base + "/api/v2/jobs/" + id;
  Json job = {
      {"id", id},
      {"status", "queued"},
      {"created_at", iso_time(created)},
      {"started_at", nullptr},
      {"completed_at", nullptr},
      {"expires_at", iso_time(created + kRetentionMs)},
      {"queue_position", nullptr},
      {"progress", nullptr},
      {"outputs", Json::array()},
      {"error", nullptr},
      {"outputs_reused", false},
      {"metrics", {{"queue_ms", nullptr}, {"execution_ms", nullptr}}},
      {"urls", {{"self", self}, {"events", self + "/events"}, {"cancel", self + "/cancel"}}},
      {"create_time", iso_time(created)},
      {"update_time", iso_time(created)}};
  if (auto given = extra_data.find("api_v2"); given != extra_data.end() && given->is_object())
    for (const char* key : {"metadata", "priority"})
      if (given->contains(key)) job[key] = (*given)[key];
  return job;
}

Json error_of(const Json& data) {
  auto text = [&](const char* key) {
    return data.contains(key) && data[key].is_string() ? data[key] : Json();
  };
  std::string trace;
  if (data.contains("traceback") && data["traceback"].is_array())
    for (const auto& line : data["traceback"])
      if (line.is_string()) trace += line.get<std::string>();
  auto message = text("exception_message");
  return {{"code", "node_execution_error"},
          {"message", message.is_null() ? Json("The execution failed.") : message},
          {"node_id", text("node_id")},
          {"class_type", text("node_type")},
          {"traceback", trace.empty() ? Json() : Json(trace)}};
}

/// Whether nodes were answered from the cache, by the messages of a history entry.
bool reused(const Json& messages) {
  for (const auto& message : messages)
    if (message.size() == 2 && message[0] == "execution_cached" &&
        !message[1].value("nodes", Json::array()).empty())
      return true;
  return false;
}

}  // namespace

bool is_final(const std::string& status) {
  return status == "succeeded" || status == "failed" || status == "canceled" || status == "expired";
}

std::string output_id(const std::string& job, const JobOutput& output) {
  return base64_for_address(
      graph::json_line(Json::array({job, output.node, output.kind, output.index})));
}

std::optional<OutputKey> output_key(const std::string& id) {
  constexpr std::size_t kLongest = 4000;
  if (id.size() > kLongest) return {};
  auto bytes = bytes_of_address(id);
  if (!bytes) return {};
  auto key = Json::parse(*bytes, nullptr, false);
  if (!key.is_array() || key.size() != 4 || !key[0].is_string() || !key[1].is_string() ||
      !key[2].is_string() || !key[3].is_number_unsigned())
    return {};
  OutputKey named{key[0].get<std::string>(), key[1].get<std::string>(), key[2].get<std::string>(),
                  key[3].get<std::size_t>()};
  // One output has one id: other spellings of it are none.
  if (output_id(named.job, {named.node, named.kind, named.index, {}}) != id) return {};
  return named;
}

std::vector<JobOutput> outputs_in(const Json& outputs) {
  std::vector<JobOutput> list;
  for (const auto& [node, kinds] : outputs.items()) {
    if (!kinds.is_object()) continue;
    for (const auto& [kind, items] : kinds.items()) {
      if (kind == "animated" || !items.is_array()) continue;
      for (std::size_t i = 0; i < items.size(); ++i) {
        const auto& item = items[i];
        bool file = item.is_object() && item.contains("filename") && item["filename"].is_string();
        if (file || (kind == "text" && item.is_string())) list.push_back({node, kind, i, item});
      }
    }
  }
  return list;
}

Json progress_of(const Job& job, const JobFeed::Live& live) {
  auto total = std::max<std::size_t>(job.prompt.size(), 1);
  std::set<std::string> done(live.cached.begin(), live.cached.end());
  double parts = 0;
  Json running;
  for (const auto& [id, node] : live.nodes.items()) {
    auto state = node.value("state", "");
    if (state == "finished") done.insert(id);
    if (state == "running" && id == live.running) running = node;
  }
  Json progress = {{"value", 0.0}, {"nodes_done", done.size()}, {"nodes_total", total}};
  if (!live.running.empty()) {
    progress["current_node"] = live.running;
    if (auto node = job.prompt.find(live.running); node != job.prompt.end())
      progress["current_node_class"] = node->value("class_type", "");
  }
  if (running.is_object()) {
    auto value = running.value("value", 0.0), most = running.value("max", 1.0);
    if (most > 0) parts = std::clamp(value / most, 0.0, 1.0);
    progress["step"] = static_cast<std::int64_t>(value);
    progress["steps"] = static_cast<std::int64_t>(most);
    progress["message"] =
        fmt::format("{} {}/{}", progress.value("current_node_class", ""),
                    static_cast<std::int64_t>(value), static_cast<std::int64_t>(most));
  }
  auto share = (static_cast<double>(done.size()) + parts) / static_cast<double>(total);
  progress["value"] = std::clamp(share, 0.0, 1.0);
  return progress;
}

std::string JobsV2::base(const Request& request) const { return base_of(request, encrypted_); }

std::optional<std::filesystem::path> JobsV2::file_of(const JobOutput& output) const {
  if (!output.item.is_object()) return {};
  try {
    auto file = place_of({output.item.value("filename", ""), output.item.value("subfolder", ""),
                          output.item.value("type", "output")},
                         folders_);
    std::error_code ignored;
    if (std::filesystem::is_regular_file(file, ignored)) return file;
  } catch (const Error&) {
    // A name that no node of ours gives.
  }
  return {};
}

Json JobsV2::output_json(const std::string& job, const JobOutput& output,
                         const std::string& base) const {
  auto name = name_of(output);
  auto id = output_id(job, output);
  auto type = output.item.is_string() ? "text/plain" : type_of_name(name);
  if (may_run(type)) type = "application/octet-stream";
  std::int64_t size = 0;
  if (output.item.is_string())
    size = static_cast<std::int64_t>(output.item.get<std::string>().size());
  std::error_code ignored;
  if (auto file = file_of(output))
    size = static_cast<std::int64_t>(std::filesystem::file_size(*file, ignored));
  return {{"node_id", output.node},
          {"name", name},
          {"type", word_for(output.kind, type)},
          {"content_type", type},
          {"size_bytes", size},
          {"id", id},
          {"hash", nullptr},
          {"url", base + "/api/v2/assets/" + id + "/content"},
          {"url_expires_at", iso_time(now_ms() + kRetentionMs)},
          {"job_id", job}};
}

Json JobsV2::outputs_json(const std::string& job, const Json& outputs,
                          const std::string& base) const {
  Json list = Json::array();
  for (const auto& output : outputs_in(outputs)) list.push_back(output_json(job, output, base));
  return list;
}

bool JobsV2::is_cancelling(const std::string& id) {
  std::lock_guard lock(mutex_);
  return cancelling_.count(id) > 0;
}

Json JobsV2::waiting(const Job& job, std::size_t position, const std::string& base) const {
  auto json = blank_job(job.id, job.extra_data, base);
  json["queue_position"] = position;
  return json;
}

Json JobsV2::running(const Job& job, const std::string& base) {
  auto json = blank_job(job.id, job.extra_data, base);
  json["status"] = is_cancelling(job.id) ? "canceling" : "running";
  auto live = feed_.live(job.id);
  if (!live) {
    json["progress"] = {{"value", 0.0}, {"nodes_done", 0}, {"nodes_total", job.prompt.size()}};
    return json;
  }
  json["started_at"] = iso_time(live->started_ms);
  json["update_time"] = iso_time(live->started_ms);
  json["progress"] = progress_of(job, *live);
  json["outputs"] = outputs_json(job.id, normal_outputs(live->outputs), base);
  json["outputs_reused"] = !live->cached.empty();
  json["metrics"]["queue_ms"] = std::max<std::int64_t>(live->started_ms - job.created_ms(), 0);
  return json;
}

Json JobsV2::ended(const Json& details, const std::string& base) const {
  const auto& extra = details["workflow"]["extra_data"];
  auto id = details["id"].get<std::string>();
  auto json = blank_job(id, extra, base);
  auto created = extra.value("create_time", std::int64_t{0});
  json["status"] = status_word(details.value("status", ""));
  if (details.contains("execution_start_time")) {
    auto started = details["execution_start_time"].get<std::int64_t>();
    json["started_at"] = iso_time(started);
    json["metrics"]["queue_ms"] = std::max<std::int64_t>(started - created, 0);
    if (details.contains("execution_end_time"))
      json["metrics"]["execution_ms"] =
          std::max<std::int64_t>(details["execution_end_time"].get<std::int64_t>() - started, 0);
  }
  if (details.contains("execution_end_time")) {
    json["completed_at"] = iso_time(details["execution_end_time"].get<std::int64_t>());
    json["update_time"] = json["completed_at"];
  }
  if (details.contains("execution_error")) json["error"] = error_of(details["execution_error"]);
  json["outputs"] = outputs_json(id, details["outputs"], base);
  if (details["execution_status"].is_object())
    json["outputs_reused"] = reused(details["execution_status"].value("messages", Json::array()));
  return json;
}

Json JobsV2::job(const std::string& id, const std::string& base) {
  auto snapshot = prompts_.queue.snapshot();
  if (snapshot.running && snapshot.running->id == id) return running(*snapshot.running, base);
  for (std::size_t i = 0; i < snapshot.waiting.size(); ++i)
    if (snapshot.waiting[i]->id == id) return waiting(*snapshot.waiting[i], i + 1, base);
  auto details = prompts_.store.details(id);
  if (details.is_null()) return nullptr;
  {
    std::lock_guard lock(mutex_);
    cancelling_.erase(id);
  }
  return ended(details, base);
}

bool JobsV2::cancel(const std::string& id) {
  auto snapshot = prompts_.queue.snapshot();
  for (const auto& job : snapshot.waiting) {
    if (job->id != id || !prompts_.queue.remove(id)) continue;
    Outcome outcome;
    outcome.state = JobState::Cancelled;
    outcome.messages.push_back({"execution_interrupted",
                                {{"prompt_id", id},
                                 {"node_id", ""},
                                 {"node_type", ""},
                                 {"executed", Json::array()},
                                 {"timestamp", now_ms()}}});
    prompts_.store.finish(*job, outcome);
    feed_.touch(id);
    return true;
  }
  {
    std::lock_guard lock(mutex_);
    cancelling_.insert(id);
  }
  if (prompts_.queue.cancel(id)) return true;
  std::lock_guard lock(mutex_);
  cancelling_.erase(id);
  return prompts_.store.has_ended(id);
}

Json JobsV2::workflow(const std::string& id) {
  auto snapshot = prompts_.queue.snapshot();
  if (snapshot.running && snapshot.running->id == id) return snapshot.running->prompt;
  for (const auto& job : snapshot.waiting)
    if (job->id == id) return job->prompt;
  auto details = prompts_.store.details(id);
  return details.is_null() ? Json() : details["workflow"]["prompt"];
}

std::optional<JobOutput> JobsV2::output(const OutputKey& key) {
  Json outputs;
  if (auto live = feed_.live(key.job)) outputs = normal_outputs(live->outputs);
  if (!outputs.contains(key.node)) {
    auto details = prompts_.store.details(key.job);
    if (details.is_null()) return {};
    outputs = details["outputs"];
  }
  for (auto& output : outputs_in(outputs))
    if (output.node == key.node && output.kind == key.kind && output.index == key.index)
      return output;
  return {};
}

}  // namespace distorch::server
