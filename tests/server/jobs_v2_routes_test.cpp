#include "distorch/server/jobs_v2_routes.h"

#include "distorch/server/job_stream.h"
#include "tests/server/v2_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;
using distorch::test::header_of;
using distorch::test::json_of;

namespace {

struct Event {
  std::string name;
  Json data;
};

/// The events of a stream's text; a comment has the name ":".
std::vector<Event> events_in(const std::string& text) {
  std::vector<Event> events;
  for (std::size_t begin = 0; begin < text.size();) {
    auto end = text.find("\n\n", begin);
    REQUIRE(end != std::string::npos);
    auto frame = text.substr(begin, end - begin);
    begin = end + 2;
    if (frame[0] == ':') {
      events.push_back({":", nullptr});
      continue;
    }
    auto line = frame.find('\n');
    REQUIRE(frame.starts_with("event: "));
    REQUIRE(frame.substr(line + 1).starts_with("data: "));
    events.push_back({frame.substr(7, line - 7), Json::parse(frame.substr(line + 7))});
  }
  return events;
}

/// Takes what a stream gives until `enough` says so or it ends.
template <class Enough>
std::vector<Event> follow(BodyStream& stream, Enough enough) {
  std::vector<Event> events;
  eventually([&] {
    auto piece = stream.next();
    for (auto& event : events_in(piece.text)) events.push_back(std::move(event));
    return piece.ended || enough(events);
  });
  return events;
}

std::vector<std::string> names_of(const std::vector<Event>& events) {
  std::vector<std::string> names;
  for (const auto& event : events) names.push_back(event.name);
  return names;
}

}  // namespace

TEST_CASE("jobs v2: a job from its submission to its outputs") {
  V2Server server("v2_job");
  auto made = server.submit(draw_graph(), {{"metadata", "mine"}, {"priority", 3}});
  auto id = made["id"].get<std::string>();
  CHECK(made["status"] == "queued");
  CHECK(made["queue_position"] == 1);
  CHECK(made["metadata"] == "mine");
  CHECK(made["priority"] == 3);
  CHECK(made["outputs"] == Json::array());
  CHECK(made["urls"]["events"] == "http://here:1/api/v2/jobs/" + id + "/events");
  for (const char* key : {"started_at", "completed_at", "error", "progress"})
    CHECK(made[key].is_null());
  server.prompts->worker.start();
  REQUIRE(server.reaches(id, "succeeded"));
  auto job = server.job(id);
  CHECK(job["metadata"] == "mine");
  CHECK(job["started_at"].get<std::string>().ends_with("Z"));
  CHECK(job["completed_at"] >= job["started_at"]);
  CHECK(job["metrics"]["execution_ms"] >= 0);
  CHECK(job["outputs_reused"] == false);
  REQUIRE(job["outputs"].size() == 1);
  auto output = job["outputs"][0];
  CHECK(output["node_id"] == "9");
  CHECK(output["name"] == "a_00001_.png");
  CHECK(output["type"] == "image");
  CHECK(output["content_type"] == "image/png");
  CHECK(output["job_id"] == id);
  CHECK(output["url"] ==
        "http://here:1/api/v2/assets/" + output["id"].get<std::string>() + "/content");
  CHECK(json_of(server.get("/jobs/" + id + "/workflow")) ==
        Json{{"workflow", draw_graph()}, {"format", "api"}});

  auto again = server.submit(draw_graph());
  REQUIRE(server.reaches(again["id"], "succeeded"));
  CHECK(server.job(again["id"])["outputs_reused"] == true);
  CHECK(json_of(server.get("/health"))["status"] == "healthy");
}

TEST_CASE("jobs v2: an error names its node, and a text is an output too") {
  V2Server server("v2_error");
  server.prompts->worker.start();
  Json graph = {{"1", {{"class_type", "Number"}, {"inputs", {{"value", 1}}}}},
                {"2", {{"class_type", "Fail"}, {"inputs", {{"x", {"1", 0}}, {"how", "error"}}}}},
                {"3", {{"class_type", "Show"}, {"inputs", {{"x", {"2", 0}}}}}}};
  auto id = server.submit(graph)["id"].get<std::string>();
  REQUIRE(server.reaches(id, "failed"));
  auto error = server.job(id)["error"];
  CHECK(error["code"] == "node_execution_error");
  CHECK(error["node_id"] == "2");
  CHECK(error["class_type"] == "Fail");
  CHECK(error["message"].get<std::string>().find("x is odd") != std::string::npos);

  graph["3"]["inputs"]["x"] = {"1", 0};
  graph.erase("2");
  id = server.submit(graph)["id"].get<std::string>();
  REQUIRE(server.reaches(id, "succeeded"));
  auto output = server.job(id)["outputs"][0];
  CHECK(output["type"] == "text");
  auto text = server.get("/assets/" + output["id"].get<std::string>() + "/content");
  CHECK(text.body == "1");
}

TEST_CASE("jobs v2: where a running job is, and cancelling it and one that waits") {
  V2Server server("v2_cancel");
  server.prompts->worker.start();
  auto first = server.submit(wait_graph(1))["id"].get<std::string>();
  auto second = server.submit(wait_graph(2))["id"].get<std::string>();
  REQUIRE(eventually([&] { return server.job(first)["progress"].contains("current_node"); }));
  auto running = server.job(first);
  CHECK(running["status"] == "running");
  CHECK(running["progress"]["current_node_class"] == "Wait");
  CHECK(running["progress"]["nodes_total"] == 1);
  CHECK(running["progress"]["nodes_done"] == 0);
  CHECK(server.job(second)["queue_position"] == 1);

  auto cancelled = json_of(server.post("/jobs/" + second + "/cancel"));
  CHECK(cancelled["status"] == "canceled");
  CHECK(server.prompts->queue.snapshot().waiting.empty());
  auto stopping = json_of(server.post("/jobs/" + first + "/cancel"))["status"];
  CHECK((stopping == "canceling" || stopping == "canceled"));
  CHECK(server.reaches(first, "canceled"));
  // A request that comes too late changes nothing.
  CHECK(json_of(server.post("/jobs/" + first + "/cancel"))["status"] == "canceled");
  CHECK(code_of(server.post("/jobs/nobody/cancel"), 404) == "not_found");
  server.stop();
  server.start();
  CHECK(server.job(second)["status"] == "canceled");
}

TEST_CASE("jobs v2: what is refused, and why") {
  V2Server server("v2_refused", 1);
  auto post = [&](const Json& body) { return server.post("/jobs", body); };
  CHECK(code_of(server.ask(Method::Post, "/jobs"), 400) == "invalid_request");
  CHECK(code_of(post(Json::array()), 400) == "invalid_request");
  CHECK(code_of(post({{"prompt", draw_graph()}}), 422) == "invalid_workflow");
  CHECK(code_of(post({{"workflow", {{"nodes", Json::array()}, {"links", Json::array()}}}}), 422) ==
        "workflow_format_ui");
  auto draw = [&](Json more) {
    more["workflow"] = draw_graph();
    return server.post("/jobs", more);
  };
  CHECK(code_of(draw({{"webhook_url", "http://x"}}), 422) == "invalid_workflow");
  CHECK(code_of(draw({{"metadata", std::string(1025, 'x')}}), 422) == "invalid_request");
  CHECK(code_of(draw({{"metadata", 5}}), 422) == "invalid_request");
  CHECK(code_of(draw({{"metadata", {{"a", 5}}}}), 422) == "metadata_invalid");
  CHECK(code_of(draw({{"priority", true}}), 422) == "invalid_request");
  CHECK(code_of(draw({{"priority", 1000001}}), 422) == "invalid_request");
  CHECK(code_of(draw({{"extra_data", {{"other", "x"}}}}), 400) == "invalid_request");
  CHECK(code_of(draw({{"extra_data", {{"api_key_comfy_org", nullptr}}}}), 400) ==
        "invalid_request");
  auto wrong = draw_graph();
  wrong["9"]["inputs"]["seed"] = "many";
  auto refused = post({{"workflow", wrong}});
  CHECK(code_of(refused, 422) == "invalid_workflow");
  CHECK(json_of(refused, 422)["error"]["details"]["node_errors"].contains("9"));
  auto missing = wait_graph();
  missing["1"]["inputs"]["value"] = {{"__type", "core/ASSET"}, {"info", {{"id", "none"}}}};
  refused = post({{"workflow", missing}});
  CHECK(code_of(refused, 422) == "missing_asset");
  CHECK(json_of(refused, 422)["error"]["details"]["missing_ids"] == Json::array({"none"}));
  CHECK(code_of(server.get("/jobs/nobody"), 404) == "not_found");
  CHECK(code_of(server.get("/jobs/nobody/workflow"), 404) == "not_found");
  CHECK(code_of(server.get("/jobs/nobody/events"), 404) == "not_found");
  CHECK(server.prompts->queue.remaining() == 0);

  server.submit(draw_graph());
  auto full = draw(Json::object());
  CHECK(code_of(full, 429) == "queue_full");
  CHECK(header_of(full, "Retry-After") == "5");
}

TEST_CASE("jobs v2: a key makes one job, also after a restart; a refused one makes none") {
  V2Server server("v2_key");
  auto post = [&](const Json& graph, const std::string& key) {
    return server.post("/jobs", {{"workflow", graph}}, {{"idempotency-key", key}});
  };
  CHECK(code_of(post({{"1", Json::object()}}, "k"), 422) == "invalid_workflow");
  CHECK(post(draw_graph(), "k").status == 201);
  CHECK(code_of(post(draw_graph(), "k"), 422) == "idempotency_key_reuse");
  CHECK(code_of(post(draw_graph(), ""), 400) == "invalid_request");
  CHECK(code_of(post(draw_graph(), std::string(256, 'k')), 400) == "invalid_request");
  server.stop();
  server.start();
  CHECK(code_of(post(draw_graph(), "k"), 422) == "idempotency_key_reuse");
  CHECK(post(draw_graph(), "l").status == 201);
  CHECK(server.prompts->queue.remaining() == 2);
}

TEST_CASE("jobs v2: lists by status and labels, page by page") {
  V2Server server("v2_list");
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i)
    ids.push_back(
        server.submit(draw_graph(i), {{"metadata", {{"run", std::to_string(i % 2)}}}})["id"]);
  auto ids_of = [](const Json& page) {
    std::vector<std::string> list;
    for (const auto& job : page["jobs"]) list.push_back(job["id"]);
    return list;
  };
  auto page = json_of(server.get("/jobs?limit=3"));
  CHECK(page["jobs"].size() == 3);
  auto all = ids_of(page);
  auto rest = json_of(server.get("/jobs?limit=3&cursor=" + page["next_cursor"].get<std::string>()));
  CHECK(!rest.contains("next_cursor"));
  for (auto& id : ids_of(rest)) all.push_back(id);
  std::sort(all.begin(), all.end());
  auto sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  CHECK(all == sorted);
  auto odd = ids_of(json_of(server.get("/jobs?metadata[run]=1")));
  CHECK(odd.size() == 2);
  CHECK(json_of(server.get("/jobs?metadata[run]=1&metadata[x]=y"))["jobs"].empty());
  CHECK(json_of(server.get("/jobs?status=queued,running"))["jobs"].size() == 5);
  CHECK(json_of(server.get("/jobs?status=succeeded"))["jobs"].empty());
  CHECK(json_of(server.get("/jobs"))["jobs"][0]["metadata"].is_object());
  CHECK(code_of(server.get("/jobs?status=done"), 400) == "invalid_request");
  CHECK(code_of(server.get("/jobs?limit=0"), 400) == "invalid_request");
  CHECK(code_of(server.get("/jobs?limit=101"), 400) == "invalid_request");
  CHECK(code_of(server.get("/jobs?cursor=x"), 400) == "invalid_cursor");
  CHECK(code_of(server.get("/jobs?metadata[run=1"), 400) == "invalid_metadata_filter");
}

TEST_CASE("jobs v2: events of a job until it has ended") {
  V2Server server("v2_events");
  server.prompts->worker.start();
  auto blocker = server.submit(wait_graph())["id"].get<std::string>();
  REQUIRE(server.reaches(blocker, "running"));
  auto id = server.submit(draw_graph())["id"].get<std::string>();
  auto response = server.get("/jobs/" + id + "/events");
  REQUIRE(response.stream);
  CHECK(header_of(response, "Content-Type") == "text/event-stream");
  std::atomic<int> woken{0};
  response.stream->wake_with([&] { ++woken; });
  auto first = events_in(response.stream->next().text);
  REQUIRE(first.size() == 1);
  CHECK(first[0].name == "status");
  CHECK(first[0].data == Json{{"status", "queued"}, {"queue_position", 1}});
  CHECK(response.stream->next().text.empty());

  // More streams than are allowed.
  auto second = server.get("/jobs/" + id + "/events");
  CHECK(second.stream);
  auto third = server.get("/jobs/" + id + "/events");
  CHECK(code_of(third, 429) == "too_many_streams");
  CHECK(header_of(third, "Retry-After") == "5");

  server.runner.gate.open = true;
  auto events = follow(*response.stream, [](const auto&) { return false; });
  auto names = names_of(events);
  REQUIRE(!names.empty());
  CHECK(woken > 0);
  CHECK(names.back() == "status");
  CHECK(events.back().data["status"] == "succeeded");
  CHECK(std::count(names.begin(), names.end(), "output") == 1);
  for (const auto& event : events)
    if (event.name == "output") CHECK(event.data["name"] == "a_00001_.png");
  CHECK(std::count(names.begin(), names.end(), "preview") <= 1);

  // Who comes late gets the outputs and the end.
  auto late = server.get("/jobs/" + blocker + "/events");
  CHECK(late.status == 429);
  second = {};
  late = server.get("/jobs/" + blocker + "/events");
  REQUIRE(late.stream);
  auto piece = late.stream->next();
  CHECK(piece.ended);
  CHECK(names_of(events_in(piece.text)) == std::vector<std::string>{"output", "status"});
}

TEST_CASE("jobs v2: previews and progress of the job that is watched") {
  V2Server server("v2_previews");
  Job job;
  job.id = "j";
  job.prompt = draw_graph();
  server.prompts->queue.put(job);
  auto taken = server.prompts->queue.take();
  JobStream stream(*server.jobs, "j", "http://here:1");
  CHECK(names_of(events_in(stream.next().text)) == std::vector<std::string>{"status", "progress"});
  CHECK(server.feed.features_of("j")["supports_preview_metadata"] == true);
  CHECK(server.feed.features_of("k") == Json::object());
  server.feed.send("j", "execution_start", {{"prompt_id", "j"}, {"timestamp", 5}});
  server.feed.send("j", "executing", {{"prompt_id", "j"}, {"node", "9"}});
  Json node = {{"value", 1}, {"max", 4}, {"state", "running"}};
  server.feed.send("j", "progress_state", {{"prompt_id", "j"}, {"nodes", {{"9", node}}}});
  std::string about = R"({"node_id":"9","image_type":"image/jpeg"})";
  server.feed.send_binary(
      "j", 4, std::string("\0\0\0", 3) + static_cast<char>(about.size()) + about + "PICTURE");
  auto events = follow(stream, [](const auto& seen) { return seen.size() >= 2; });
  REQUIRE(events.size() == 2);
  for (const auto& event : events)
    if (event.name == "progress") {
      CHECK(event.data["value"] == 0.25);
      CHECK(event.data["step"] == 1);
      CHECK(event.data["steps"] == 4);
      CHECK(event.data["message"] == "Draw 1/4");
    } else {
      CHECK(event.name == "preview");
      CHECK(event.data == Json{{"node_id", "9"},
                               {"content_type", "image/jpeg"},
                               {"data_base64", "UElDVFVSRQ=="}});
    }
  CHECK(server.messages.sent().size() >= 4);  // clients hear all of it too
}

TEST_CASE("jobs v2: a job of /prompt is told live, with a client and without one") {
  V2Server server("v2_prompt");
  server.prompts->worker.start();
  auto put = [&](const std::string& id, Json graph, const Json& extra_data) {
    Job job;
    job.id = id;
    job.prompt = std::move(graph);
    for (const auto& [node, unused] : job.prompt.items()) job.outputs.push_back(node);
    job.extra_data = extra_data;
    server.prompts->queue.put(std::move(job));
  };
  put("blocker", wait_graph(), Json::object());
  REQUIRE(eventually([&] { return server.job("blocker")["progress"].contains("current_node"); }));
  CHECK(server.job("blocker")["progress"]["current_node_class"] == "Wait");
  CHECK(server.job("blocker")["started_at"].is_string());

  put("alone", draw_graph(1), Json::object());
  put("of a page", draw_graph(2), {{"client_id", "page"}});
  JobStream alone(*server.jobs, "alone", "http://here:1");
  JobStream of_page(*server.jobs, "of a page", "http://here:1");
  server.runner.gate.open = true;
  for (auto* stream : {&alone, &of_page}) {
    auto events = follow(*stream, [](const auto&) { return false; });
    auto names = names_of(events);
    CHECK(std::count(names.begin(), names.end(), "preview") >= 1);
    CHECK(std::count(names.begin(), names.end(), "output") == 1);
    CHECK(events.back().data["status"] == "succeeded");
  }
  // The page did not say that it understands pictures with their node.
  auto seen = server.messages.seen_by("page");
  CHECK(std::count(seen.begin(), seen.end(), "#4") == 0);
  CHECK(std::count(seen.begin(), seen.end(), "execution_success") == 1);
}
