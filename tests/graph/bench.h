#pragma once
#include <doctest/doctest.h>

#include "distorch/graph/executor.h"
#include "distorch/graph/validation.h"
#include "fake_nodes.h"

namespace distorch::graph::testing {

/// One executor with its journal; run() validates first, as every caller does.
struct Bench {
  explicit Bench(CacheMode mode = CacheMode::Classic, std::size_t size = 0)
      : executor(catalog, mode, size) {
    context.set(journal);
  }
  RunResult run(const char* text) { return run(prompt_of(text)); }
  RunResult run(Json prompt) {
    events = Recorder();
    Validation checked = validate(prompt, catalog, {.context = &context});
    for (auto& line : checked.lines()) FAIL_CHECK(line);
    RunRequest request;
    request.prompt = prompt;
    request.outputs = checked.good_outputs;
    request.prompt_id = "p";
    request.context = &context;
    return executor.run(request, events);
  }
  std::string shown(const RunResult& result, const char* node) {
    return result.outputs.contains(node) ? result.outputs[node]["text"].dump() : "nothing";
  }

  Catalog catalog = fake_catalog();
  Journal journal;
  Context context;
  Executor executor;
  Recorder events;
};

}  // namespace distorch::graph::testing
