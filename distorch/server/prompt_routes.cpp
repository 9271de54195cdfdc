#include "distorch/server/prompt_routes.h"

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/server/uuid.h"

namespace distorch::server {

namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& sentence) {
  throw Error(ErrorKind::Usage, field, sentence);
}

/// {"error": {type, message, details, extra_info}, "node_errors": {}}
Response rejection(const std::string& type, const std::string& message,
                   const std::string& details) {
  return Response::json({{"error",
                          {{"type", type},
                           {"message", message},
                           {"details", details},
                           {"extra_info", Json::object()}}},
                         {"node_errors", Json::object()}},
                        400);
}

Json object_body(const Request& request) {
  auto body = request.json();
  if (!body.is_object()) refuse("body", "is to be a JSON object");
  return body;
}

std::string id_of(const Json& body) {
  auto given = body.find("prompt_id");
  if (given == body.end() || given->is_null()) return new_uuid();
  constexpr std::size_t longest = 200;
  if (!given->is_string()) return "";
  auto id = given->get<std::string>();
  return id.size() <= longest ? id : "";
}

Json number_of(const Json& body, JobQueue& queue) {
  auto given = body.find("number");
  if (given == body.end() || given->is_null()) {
    auto front = body.find("front");
    bool first = front != body.end() && !front->is_null() && *front != false && *front != 0;
    return queue.next_number(first);
  }
  if (!given->is_number()) refuse("number", "is to be a number");
  return given->get<double>();
}

Json extra_data_of(const Json& body, const Request& request) {
  Json extra = Json::object();
  if (auto given = body.find("extra_data"); given != body.end() && !given->is_null())
    extra = *given;
  if (!extra.is_object()) refuse("extra_data", "is to be an object");
  if (auto client = body.find("client_id"); client != body.end()) extra["client_id"] = *client;
  if (auto source = request.header("comfy-usage-source");
      !source.empty() && !extra.contains("comfy_usage_source"))
    extra["comfy_usage_source"] = source;
  // Secrets of a hosted service, which no node here uses, are not to be kept.
  for (const char* secret : {"auth_token_comfy_org", "api_key_comfy_org"}) extra.erase(secret);
  extra["create_time"] = now_ms();
  return extra;
}

std::optional<std::vector<std::string>> targets_of(const Json& body) {
  auto given = body.find("partial_execution_targets");
  if (given == body.end() || given->is_null()) return {};
  constexpr const char* wanted = "is to be a list of node ids";
  if (!given->is_array()) refuse("partial_execution_targets", wanted);
  std::vector<std::string> targets;
  for (const auto& id : *given) {
    if (!id.is_string()) refuse("partial_execution_targets", wanted);
    targets.push_back(id.get<std::string>());
  }
  return targets;
}

void log_refusal(const std::vector<std::string>& lines) {
  constexpr std::size_t most = 20;
  for (std::size_t i = 0; i < std::min(lines.size(), most); ++i)
    log::warn("prompt refused: {}", lines[i]);
  if (lines.size() > most) log::warn("prompt refused: {} faults more", lines.size() - most);
}

Response post_prompt(Prompts& prompts, const Request& request) {
  auto body = object_body(request);
  Job job;
  job.number = number_of(body, prompts.queue);
  if (!body.contains("prompt"))
    return rejection("no_prompt", "No prompt provided", "No prompt provided");
  job.id = id_of(body);
  if (job.id.empty())
    return rejection("invalid_prompt_id", "prompt_id must be a text of 1 to 200 characters",
                     "leave prompt_id out and the server makes one");
  job.extra_data = extra_data_of(body, request);
  auto targets = targets_of(body);
  job.prompt = std::move(body["prompt"]);
  auto validation = prompts.runner.validate(job.prompt, std::move(targets));
  if (!validation.can_run()) {
    prompts.metrics.refused();
    log_refusal(validation.lines());
    return Response::json({{"error", validation.error}, {"node_errors", validation.node_errors()}},
                          400);
  }
  job.outputs = validation.good_outputs;
  Json answer = {
      {"prompt_id", job.id}, {"number", job.number}, {"node_errors", validation.node_errors()}};
  prompts.queue.put(std::move(job));
  prompts.metrics.accepted();
  return Response::json(answer);
}

Response get_queue(Prompts& prompts) {
  auto snapshot = prompts.queue.snapshot();
  Json running = Json::array(), waiting = Json::array();
  if (snapshot.running) running.push_back(queue_item(*snapshot.running));
  for (const auto& job : snapshot.waiting) waiting.push_back(queue_item(*job));
  return Response::json({{"queue_running", running}, {"queue_pending", waiting}});
}

Response post_queue(Prompts& prompts, const Request& request) {
  auto body = object_body(request);
  auto ids = ids_to_delete(body);
  if (wants_clear(body)) prompts.queue.clear();
  for (const auto& id : ids) prompts.queue.remove(id);
  return Response::empty(200);
}

/// An absent or broken body stops whatever runs, as scripts expect it.
Response post_interrupt(Prompts& prompts, const Request& request) {
  std::optional<std::string> id;
  try {
    auto body = request.content().empty() ? Json() : request.json();
    if (body.is_object() && body.value("prompt_id", Json()).is_string() && body["prompt_id"] != "")
      id = body["prompt_id"].get<std::string>();
  } catch (const Error&) {
    id.reset();
  }
  if (prompts.queue.interrupt(id)) log::info("the running prompt is interrupted");
  return Response::empty(200);
}

Response post_free(Prompts& prompts, const Request& request) {
  auto body = object_body(request);
  auto flag = [&](const char* name) {
    auto given = body.find(name);
    if (given == body.end() || given->is_null()) return false;
    if (!given->is_boolean()) refuse(name, "is to be true or false");
    return given->get<bool>();
  };
  prompts.worker.release(flag("unload_models"), flag("free_memory"));
  return Response::empty(200);
}

}  // namespace

bool wants_clear(const Json& body) {
  auto given = body.find("clear");
  return given != body.end() && given->is_boolean() && given->get<bool>();
}

std::vector<std::string> ids_to_delete(const Json& body) {
  std::vector<std::string> ids;
  auto given = body.find("delete");
  if (given == body.end() || given->is_null()) return ids;
  if (!given->is_array()) refuse("delete", "is to be a list of prompt ids");
  for (const auto& id : *given)
    if (id.is_string()) ids.push_back(id.get<std::string>());
  return ids;
}

void add_prompt_routes(Router& router, Prompts& prompts) {
  auto with = [&prompts](auto handler) {
    return [&prompts, handler](const Request& request) { return handler(prompts, request); };
  };
  router.add({Method::Get, "/prompt", Mount::Both, "How many prompts wait or run.",
              [&prompts](const Request&) {
                return Response::json(status_of(prompts.queue.remaining())["status"]);
              }});
  router.add({Method::Post, "/prompt", Mount::Both, "Checks a prompt and puts it into the queue.",
              with(post_prompt)});
  router.add({Method::Get, "/queue", Mount::Both, "The prompt that runs and those that wait.",
              [&prompts](const Request&) { return get_queue(prompts); }});
  router.add({Method::Post, "/queue", Mount::Both, "Takes waiting prompts out of the queue.",
              with(post_queue)});
  router.add({Method::Post, "/interrupt", Mount::Both,
              "Stops the running prompt, or only if it has the id given.", with(post_interrupt)});
  router.add({Method::Post, "/free", Mount::Both,
              "Gives back the memory of models, and of results kept, once no prompt runs.",
              with(post_free)});
}

}  // namespace distorch::server
