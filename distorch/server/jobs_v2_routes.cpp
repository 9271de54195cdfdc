#include "distorch/server/jobs_v2_routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "distorch/base/log.h"
#include "distorch/server/api_v2.h"
#include "distorch/server/job_stream.h"
#include "distorch/server/uuid.h"

namespace distorch::server {

namespace {

constexpr std::size_t kLabelBytes = 1024;
constexpr std::size_t kMostLabels = 16;
constexpr std::int64_t kMostPriority = 1'000'000;
constexpr std::size_t kKeyLength = 255;
constexpr std::int64_t kListed = 50, kMostListed = 100;
// A filter that fits little looks at no more jobs than this in one request.
constexpr std::int64_t kMostLookedAt = 500;

[[noreturn]] void refuse(int status, const char* code, const std::string& sentence,
                         Json details = nullptr) {
  throw RefusedV2(status, code, sentence, std::move(details));
}

[[noreturn]] void no_job(const std::string& id) {
  throw RefusedV2(404, "not_found", fmt::format("There is no job '{}'.", id.substr(0, 100)));
}

const Json* given(const Json& body, const char* key) {
  auto found = body.find(key);
  return found == body.end() || found->is_null() ? nullptr : &*found;
}

/// One text, or up to 16 texts by their names.
Json labels_of(const Json& body) {
  const auto* labels = given(body, "metadata");
  if (!labels) return nullptr;
  auto fits = [](const Json& text) {
    return text.is_string() && text.get_ref<const std::string&>().size() <= kLabelBytes;
  };
  if (labels->is_string()) {
    if (!fits(*labels))
      refuse(422, "invalid_request",
             fmt::format("'metadata' has more than {} bytes of UTF-8.", kLabelBytes));
    return *labels;
  }
  if (!labels->is_object())
    refuse(422, "invalid_request", "'metadata' is to be a text, or an object of texts.");
  if (labels->size() > kMostLabels)
    refuse(422, "metadata_invalid",
           fmt::format("'metadata' has {} pairs, {} are taken.", labels->size(), kMostLabels));
  for (const auto& [key, value] : labels->items())
    if (key.empty() || key.size() > kLabelBytes || !fits(value))
      refuse(422, "metadata_invalid",
             fmt::format("'metadata' has '{}', which is no text of up to {} bytes.",
                         key.substr(0, 100), kLabelBytes));
  return *labels;
}

Json priority_of(const Json& body) {
  const auto* priority = given(body, "priority");
  if (!priority) return nullptr;
  if (!priority->is_number_integer())
    refuse(422, "invalid_request", "'priority' is to be an integer.");
  if (auto value = priority->get<std::int64_t>(); value < -kMostPriority || value > kMostPriority)
    refuse(422, "invalid_request",
           fmt::format("'priority' is to be between -{0} and {0}.", kMostPriority));
  return *priority;
}

/// Its one field is the key of a hosted service, which no node here uses: it is checked, not kept.
void check_extra_data(const Json& body) {
  const auto* extra = given(body, "extra_data");
  if (!extra) return;
  constexpr const char* kField = "api_key_comfy_org";
  if (!extra->is_object() || extra->size() > extra->count(kField))
    refuse(400, "invalid_request", "'extra_data' has no other field than 'api_key_comfy_org'.");
  if (extra->contains(kField) && !(*extra)[kField].is_string())
    refuse(400, "invalid_request", "'extra_data.api_key_comfy_org' is to be a text.");
}

/// Puts names of files into the places of assets; ids that are none go to `missing`.
class AssetNames {
 public:
  AssetNames(JobsV2State& state, std::vector<std::string>& missing)
      : state_(state), missing_(missing) {}

  void replace(Json& value) {
    if (value.is_object() && value.value("__type", Json()) == "core/ASSET") {
      auto name = name_of(value);
      if (name)
        value = *name;
      else
        missing_.push_back(shown(value));
      return;
    }
    if (!value.is_structured()) return;
    for (auto& item : value) replace(item);
  }

 private:
  static std::string shown(const Json& reference) {
    auto info = reference.value("info", Json());
    if (!info.is_object()) return "<no info>";
    auto id = info.value("id", Json("<no id>"));
    return id.is_string() ? id.get<std::string>() : id.dump();
  }

  std::optional<std::string> name_of(const Json& reference) {
    auto info = reference.value("info", Json());
    if (!info.is_object()) return {};
    if (auto id = info.value("id", Json()); id.is_string()) {
      auto text = id.get<std::string>();
      if (auto asset = state_.assets.by_id(text)) return Assets::input_value(*asset);
      if (auto key = output_key(text)) return name_of(state_.jobs.output(*key));
    }
    if (auto hash = info.value("hash", Json()); hash.is_string())
      if (auto asset = state_.assets.by_hash(hash.get<std::string>()))
        return Assets::input_value(*asset);
    return {};
  }

  /// Outputs of other jobs, as loaders name files of the output folder.
  static std::optional<std::string> name_of(const std::optional<JobOutput>& output) {
    if (!output || !output->item.is_object()) return {};
    auto subfolder = output->item.value("subfolder", "");
    auto name = output->item.value("filename", "");
    auto type = output->item.value("type", "output");
    return (subfolder.empty() ? name : subfolder + "/" + name) +
           (type == "input" ? "" : " [" + type + "]");
  }

  JobsV2State& state_;
  std::vector<std::string>& missing_;
};

Json workflow_in(const Json& body) {
  for (const char* reserved : {"webhook_url", "inputs"})
    if (given(body, reserved))
      refuse(422, "invalid_workflow", fmt::format("'{}' is not taken.", reserved));
  const auto* workflow = given(body, "workflow");
  if (!workflow || !workflow->is_object())
    refuse(422, "invalid_workflow", "'workflow' is to be a graph in API format.");
  if (workflow->contains("nodes") && (*workflow)["nodes"].is_array() && workflow->contains("links"))
    refuse(422, "workflow_format_ui",
           "This workflow is as the page saves it; export it in API format.");
  return *workflow;
}

/// Claims the request's key, and gives it back unless the job was taken.
class Key {
 public:
  Key(AssetStore& store, const Request& request) : store_(store) {
    auto header = request.headers.find("idempotency-key");
    if (header == request.headers.end()) return;
    if (header->second.empty() || header->second.size() > kKeyLength)
      refuse(400, "invalid_request",
             fmt::format("Idempotency-Key is to have 1 to {} characters.", kKeyLength));
    if (!store_.claim(header->second))
      refuse(422, "idempotency_key_reuse",
             "This Idempotency-Key was used before; look for the job that it made.");
    key_ = header->second;
  }
  ~Key() {
    if (key_.empty()) return;
    try {
      store_.release(key_);
    } catch (const std::exception& error) {
      log::error("a key stays claimed: {}", error.what());
    }
  }
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;
  void keep() { key_.clear(); }

 private:
  AssetStore& store_;
  std::string key_;
};

Response post_job(JobsV2State& state, const Request& request) {
  auto& prompts = state.jobs.prompts();
  auto body = object_of(request);
  Job job;
  job.prompt = workflow_in(body);
  Json labels = {{"metadata", labels_of(body)}, {"priority", priority_of(body)}};
  for (const char* key : {"metadata", "priority"})
    if (labels[key].is_null()) labels.erase(key);
  check_extra_data(body);
  std::vector<std::string> missing;
  AssetNames(state, missing).replace(job.prompt);
  if (!missing.empty())
    refuse(422, "missing_asset", fmt::format("There is no asset {}.", fmt::join(missing, ", ")),
           {{"missing_ids", missing}});
  Key key(state.assets.store(), request);
  auto validation = prompts.runner.validate(job.prompt, {});
  if (!validation.can_run()) {
    prompts.metrics.refused();
    for (const auto& line : validation.lines()) log::warn("job refused: {}", line);
    refuse(422, "invalid_workflow", validation.error.value("message", "The workflow cannot run."),
           {{"node_errors", validation.node_errors()}});
  }
  job.id = new_uuid();
  job.number = prompts.queue.next_number(false);
  job.outputs = validation.good_outputs;
  job.extra_data = {{"client_id", job.id}, {"create_time", now_ms()}};
  if (!labels.empty()) job.extra_data["api_v2"] = std::move(labels);
  auto id = job.id;
  try {
    prompts.queue.put(std::move(job));
  } catch (const Error& error) {
    if (error.where() == "queue") refuse(429, "queue_full", error.sentence());
    throw;
  }
  key.keep();
  prompts.metrics.accepted();
  return Response::json(state.jobs.job(id, state.jobs.base(request)), 201);
}

std::int64_t number_in(const Request& request, const char* name, std::int64_t usual,
                       const char* code) {
  auto text = request.in_query(name);
  if (!text) return usual;
  std::int64_t number = 0;
  auto read = std::from_chars(text->data(), text->data() + text->size(), number);
  if (read.ec != std::errc() || read.ptr != text->data() + text->size() || number < 0)
    refuse(400, code, fmt::format("'{}' is to be a number that is not negative.", name));
  return number;
}

/// What a list is narrowed to.
struct Filter {
  std::set<std::string> states;  // empty: any
  std::vector<std::pair<std::string, std::string>> labels;

  bool fits(const Json& job) const {
    if (!states.empty() && states.count(job["status"].get<std::string>()) == 0) return false;
    return std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
      auto metadata = job.value("metadata", Json());
      return metadata.is_object() && metadata.value(label.first, Json()) == label.second;
    });
  }
};

Filter filter_of(const Request& request) {
  constexpr std::array known = {"queued",   "running", "succeeded", "canceling",
                                "canceled", "failed",  "expired"};
  Filter filter;
  auto list = request.in_query("status").value_or("");
  for (std::size_t begin = 0; begin < list.size();) {
    auto comma = std::min(list.find(',', begin), list.size());
    auto word = list.substr(begin, comma - begin);
    begin = comma + 1;
    if (word.empty()) continue;
    if (std::find(known.begin(), known.end(), word) == known.end())
      refuse(400, "invalid_request",
             fmt::format("'{}' is no status; these are: {}.", word.substr(0, 100),
                         fmt::join(known, ", ")));
    filter.states.insert(word);
  }
  constexpr std::string_view kName = "metadata[";
  for (const auto& [name, value] : request.query) {
    if (!name.starts_with(kName)) continue;
    if (name.back() != ']' || name.size() == kName.size() + 1 ||
        filter.labels.size() == kMostLabels)
      refuse(400, "invalid_metadata_filter",
             fmt::format("'{}' is no filter.", name.substr(0, 100)));
    filter.labels.emplace_back(name.substr(kName.size(), name.size() - kName.size() - 1), value);
  }
  return filter;
}

Response list_jobs(JobsV2State& state, const Request& request) {
  auto limit = number_in(request, "limit", kListed, "invalid_request");
  if (limit < 1 || limit > kMostListed)
    refuse(400, "invalid_request", fmt::format("'limit' is to be between 1 and {}.", kMostListed));
  auto offset = number_in(request, "cursor", 0, "invalid_cursor");
  auto filter = filter_of(request);
  auto base = state.jobs.base(request);
  Json jobs = Json::array();
  JobQuery query;
  query.offset = offset;
  query.limit = kMostLookedAt;
  auto page = state.jobs.prompts().store.list(query);
  std::int64_t looked_at = 0;
  for (const auto& entry : Json::parse(page.jobs)) {
    if (static_cast<std::int64_t>(jobs.size()) == limit) break;
    ++looked_at;
    auto job = state.jobs.job(entry["id"].get<std::string>(), base);
    if (!job.is_null() && filter.fits(job)) jobs.push_back(std::move(job));
  }
  bool more = offset + looked_at < page.total;
  Json answer = {{"jobs", jobs},
                 {"truncated", more && static_cast<std::int64_t>(jobs.size()) < limit}};
  if (more) answer["next_cursor"] = std::to_string(offset + looked_at);
  return Response::json(answer);
}

Response get_job(JobsV2State& state, const Request& request) {
  const auto& id = request.parameters.at("job_id");
  auto job = state.jobs.job(id, state.jobs.base(request));
  if (job.is_null()) no_job(id);
  return Response::json(job);
}

Response get_workflow(JobsV2State& state, const Request& request) {
  const auto& id = request.parameters.at("job_id");
  auto workflow = state.jobs.workflow(id);
  if (workflow.is_null()) no_job(id);
  return Response::json(Json{{"workflow", workflow}, {"format", "api"}});
}

Response cancel_job(JobsV2State& state, const Request& request) {
  const auto& id = request.parameters.at("job_id");
  if (!state.jobs.cancel(id)) no_job(id);
  return get_job(state, request);
}

Response job_events(JobsV2State& state, const Request& request) {
  const auto& id = request.parameters.at("job_id");
  auto base = state.jobs.base(request);
  if (state.jobs.job(id, base).is_null()) no_job(id);
  if (state.jobs.feed().watches() >= state.most_streams)
    refuse(429, "too_many_streams",
           "Too many streams of events are open; ask for the job instead.");
  Response response;
  response.stream = std::make_shared<JobStream>(state.jobs, id, base);
  return response.with("Content-Type", "text/event-stream")
      .with("Cache-Control", "no-cache")
      .with("X-Accel-Buffering", "no");
}

}  // namespace

void add_jobs_v2_routes(Router& router, JobsV2State& state) {
  auto add = [&](Method method, const char* pattern, const char* summary, auto handler) {
    router.add({method, pattern, Mount::Api, summary,
                with_envelope([&state, handler](const Request& request) {
                  return handler(state, request);
                })});
  };
  add(Method::Get, "/v2/health", "Whether the newer job API answers.",
      [](JobsV2State&, const Request&) { return Response::json(Json{{"status", "healthy"}}); });
  add(Method::Post, "/v2/jobs", "Checks a graph and puts it into the queue as a job.", post_job);
  add(Method::Get, "/v2/jobs", "Jobs, the newest first, by status and labels.", list_jobs);
  add(Method::Get, "/v2/jobs/{job_id}", "One job: where it stands and its outputs.", get_job);
  add(Method::Get, "/v2/jobs/{job_id}/workflow", "The graph that a job runs.", get_workflow);
  add(Method::Post, "/v2/jobs/{job_id}/cancel", "Stops a job or takes it out of the queue.",
      cancel_job);
  add(Method::Get, "/v2/jobs/{job_id}/events",
      "A job's status, progress, previews and outputs as server-sent events.", job_events);
}

}  // namespace distorch::server
