#include "distorch/streaming/trace.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

namespace distorch::streaming {
namespace {

const c10::Stream host(c10::Stream::DEFAULT, c10::kCPU);

/// Names of the spans in a trace's text.
std::set<std::string> spans_in(const std::string& text) {
  std::set<std::string> names;
  const auto trace = nlohmann::json::parse(text);
  for (const auto& event : trace.at("traceEvents"))
    if (event.at("ph") == "X") names.insert(event.at("name").get<std::string>());
  return names;
}

TEST_CASE("a trace holds what began while it was on and has ended") {
  { Traced before("lane", "before", host); }
  Trace trace;
  CHECK(Trace::is_on());
  { Traced during("lane", "during", host); }
  Traced open("lane", "open", host);
  CHECK(spans_in(trace.to_json()) == std::set<std::string>{"during"});
}

TEST_CASE("a span that outlives its trace is not taken for one of the next trace") {
  std::optional<Trace> trace;  // both at one address
  trace.emplace();
  std::optional<Traced> late;
  late.emplace("lane", "late", host);
  trace.reset();
  CHECK_FALSE(Trace::is_on());
  trace.emplace();
  Traced open("lane", "open", host);
  late.reset();
  CHECK(spans_in(trace->to_json()).empty());
}

}  // namespace
}  // namespace distorch::streaming
