#include "distorch/server/jobs_routes.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/text.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/history_routes.h"
#include "distorch/server/uuid.h"

namespace distorch::server {

namespace {

Response mistake(const std::string& sentence) { return Response::json({{"error", sentence}}, 400); }

std::string trimmed(const std::string& text) {
  auto first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

/// "completed,failed" -> states; names that are none go to `unknown`.
std::vector<JobState> states_in(const std::string& list, std::vector<std::string>& unknown) {
  std::vector<JobState> states;
  for (std::size_t begin = 0; begin <= list.size();) {
    auto comma = std::min(list.find(',', begin), list.size());
    auto name = lower(trimmed(list.substr(begin, comma - begin)));
    begin = comma + 1;
    if (name.empty()) continue;
    if (auto state = job_state(name))
      states.push_back(*state);
    else
      unknown.push_back(name);
  }
  return states;
}

Response list_jobs(Prompts& prompts, const Request& request) {
  JobQuery query;
  std::vector<std::string> unknown;
  query.states = states_in(request.in_query("status").value_or(""), unknown);
  if (!unknown.empty())
    return mistake(
        fmt::format("Invalid status value(s): {}. Valid values: pending, in_progress, "
                    "completed, failed, cancelled",
                    fmt::join(unknown, ", ")));
  query.workflow_id = request.in_query("workflow_id").value_or("");
  auto by = lower(request.in_query("sort_by").value_or("created_at"));
  if (by != "created_at" && by != "execution_duration")
    return mistake("sort_by must be 'created_at' or 'execution_duration'");
  query.by_duration = by == "execution_duration";
  auto order = lower(request.in_query("sort_order").value_or("desc"));
  if (order != "asc" && order != "desc") return mistake("sort_order must be 'asc' or 'desc'");
  query.ascending = order == "asc";
  try {
    query.limit = integer_in_query(request, "limit");
    query.offset = std::max<std::int64_t>(integer_in_query(request, "offset").value_or(0), 0);
  } catch (const Error& error) {
    return mistake(error.where() + " " + error.sentence());
  }
  if (query.limit && *query.limit <= 0) return mistake("limit must be a positive integer");
  auto page = prompts.store.list(query);
  return json_text(fmt::format(
      R"({{"jobs":{},"pagination":{{"offset":{},"limit":{},"total":{},"has_more":{}}}}})",
      page.jobs, query.offset, query.limit ? std::to_string(*query.limit) : "null", page.total,
      query.offset + page.count < page.total));
}

Response get_job(Prompts& prompts, const Request& request) {
  const auto& id = request.parameters.at("job_id");
  auto snapshot = prompts.queue.snapshot();
  if (snapshot.running && snapshot.running->id == id)
    return Response::json(job_entry(*snapshot.running, JobState::InProgress));
  for (const auto& job : snapshot.waiting)
    if (job->id == id) return Response::json(job_entry(*job, JobState::Pending));
  auto details = prompts.store.details(id);
  if (details.is_null()) return Response::json({{"error", "Job not found"}}, 404);
  return Response::json(details);
}

Response cancel_jobs(Prompts& prompts, const Request& request) {
  Json body;
  try {
    body = request.json();
  } catch (const Error&) {
    return mistake("Request body must be valid JSON");
  }
  if (!body.is_object() || !body.contains("job_ids") || !body["job_ids"].is_array())
    return mistake("job_ids must be a list");
  const auto& ids = body["job_ids"];
  Json invalid = Json::array();
  for (const auto& id : ids)
    if (!id.is_string() || !is_uuid(id.get<std::string>()))
      invalid.push_back(id.is_string() ? id : Json(graph::python_repr(id)));
  if (!invalid.empty())
    return Response::json({{"error", "job_ids contains invalid id(s)"}, {"invalid_ids", invalid}},
                          400);
  bool cancelled = false;
  for (const auto& id : ids) cancelled |= prompts.queue.cancel(id.get<std::string>());
  return Response::json({{"cancelled", cancelled}});
}

}  // namespace

void add_jobs_routes(Router& router, Prompts& prompts) {
  router.add({Method::Get, "/jobs", Mount::Api, "Prompts that wait, run or have ended.",
              [&prompts](const Request& request) { return list_jobs(prompts, request); }});
  router.add({Method::Get, "/jobs/{job_id}", Mount::Api, "One prompt, with its outputs.",
              [&prompts](const Request& request) { return get_job(prompts, request); }});
  router.add({Method::Post, "/jobs/{job_id}/cancel", Mount::Api,
              "Takes a waiting prompt out or stops the running one.",
              [&prompts](const Request& request) {
                bool done = prompts.queue.cancel(request.parameters.at("job_id"));
                return Response::json({{"cancelled", done}});
              }});
  router.add({Method::Post, "/jobs/cancel", Mount::Api, "The same for several prompts.",
              [&prompts](const Request& request) { return cancel_jobs(prompts, request); }});
}

}  // namespace distorch::server
