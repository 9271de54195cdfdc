#include "distorch/server/engine_routes.h"

#include "distorch/base/error.h"

namespace distorch::server {

namespace {

Response metrics(EngineState& state) {
  auto snapshot = state.prompts.queue.snapshot();
  auto text = state.prompts.metrics.text(snapshot.waiting.size(), snapshot.running ? 1 : 0,
                                         state.machine.devices(), state.machine.numbers());
  return Response::bytes(std::move(text), "text/plain; version=0.0.4; charset=utf-8");
}

Response health(EngineState& state) {
  auto problem = state.prompts.store.problem();
  bool alive = state.prompts.worker.alive();
  Json answer = {{"status", alive ? "ok" : "stopped"},
                 {"queue_remaining", state.prompts.queue.remaining()},
                 {"history_kept", problem.empty()}};
  if (!problem.empty()) answer["problem"] = problem;
  return Response::json(answer, alive ? 200 : 503);
}

/// The body is what POST /prompt takes, or the prompt alone.
Response plan(EngineState& state, const Request& request) {
  auto body = request.json();
  if (!body.is_object()) throw Error(ErrorKind::Usage, "body", "is to be a JSON object");
  auto wrapped = body.find("prompt");
  bool has_prompt = wrapped != body.end() && !wrapped->contains("class_type");
  Json prompt = has_prompt ? *wrapped : body;
  auto validation = state.prompts.runner.validate(prompt, {});
  if (!validation.can_run())
    return Response::json({{"error", validation.error}, {"node_errors", validation.node_errors()}},
                          400);
  try {
    return Response::json(state.machine.plan(prompt, validation.good_outputs));
  } catch (const Error& error) {
    // Whatever a node says of a prompt that passed the checks, it is the prompt that does not fit.
    throw Error(ErrorKind::Usage, error.where(), error.sentence());
  }
}

}  // namespace

void add_engine_routes(Router& router, EngineState& state) {
  router.add({Method::Get, "/metrics", Mount::Plain, "Counters for Prometheus.",
              [&state](const Request&) { return metrics(state); }});
  router.add({Method::Get, "/health", Mount::Plain,
              "Whether prompts are run, and whether the history is kept on disk.",
              [&state](const Request&) { return health(state); }});
  router.add({Method::Get, "/distorch/devices", Mount::Both,
              "Devices with their memory, and the speeds of their links.",
              [&state](const Request&) { return Response::json(state.machine.devices()); }});
  router.add(
      {Method::Get, "/distorch/plan", Mount::Both,
       "What the running prompt and the next one were predicted to take.",
       [&state](const Request&) { return Response::json(state.prompts.worker.predictions()); }});
  router.add({Method::Post, "/distorch/plan", Mount::Both,
              "Seconds a step and peak memory of every model of a prompt, without running it.",
              [&state](const Request& request) { return plan(state, request); }});
}

}  // namespace distorch::server
