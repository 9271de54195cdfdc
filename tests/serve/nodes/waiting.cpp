#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "distorch/base/run_token.h"
#include "distorch/streaming/engine.h"
#include "tests/serve/nodes/testing_nodes.h"

namespace distorch::testing_nodes {

using namespace graph;

namespace {

constexpr const char* kCategory = "experimental/async";
constexpr std::chrono::milliseconds kGlance(10);

bool plans_only(const Call& call) { return call.context<streaming::Engine>().plan_only(); }

/// Waits; throws where the run is to stop. With `told` the call reports how far it is.
void wait(Call& call, double seconds, bool told = false) {
  using Clock = std::chrono::steady_clock;
  if (plans_only(call)) return;
  auto start = Clock::now();
  for (double passed = 0; passed < seconds;
       passed = std::chrono::duration<double>(Clock::now() - start).count()) {
    throw_if_interrupted();
    if (told) call.progress(passed, seconds);
    std::this_thread::sleep_for(kGlance);
  }
}

void pass(Call& call) { call.out(0, call.in("value")); }

Value plain(double brightness) {
  return Value::of("IMAGE", at::full({1, 512, 512, 3}, brightness, at::kFloat));
}

void run_timeout(Call& call) {
  double most = call.number("timeout"), needed = call.number("operation_time");
  wait(call, std::min(most, needed));
  if (needed > most)
    throw std::runtime_error(fmt::format("Operation timed out after {} seconds", most));
  pass(call);
}

/// Fails where another call uses the resource of that name.
void run_resource(Call& call) {
  static std::mutex mutex;
  static std::set<std::string> used;
  auto name = call.text("resource_id");
  if (plans_only(call)) return pass(call);
  {
    std::lock_guard lock(mutex);
    if (!used.insert(name).second) throw std::runtime_error("Resource " + name + " is in use");
  }
  auto give_back = [&] {
    std::lock_guard lock(mutex);
    used.erase(name);
  };
  try {
    wait(call, call.number("duration"));
  } catch (...) {
    give_back();
    throw;
  }
  give_back();
  pass(call);
}

void run_batch(Call& call) {
  const auto& images = call.get<at::Tensor>("images");
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    wait(call, call.number("process_time_per_item"));
    call.progress(static_cast<double>(i + 1), static_cast<double>(images.size(0)));
  }
  call.out(0, Value::of("IMAGE", 1 - images));
}

std::string too_large(const Call& call, const char* limit) {
  if (call.number("value") <= call.number(limit)) return "";
  return fmt::format("{} is more than {}", call.number("value"), call.number(limit));
}

Json sleep(Json value, double seconds) {
  return {{"class_type", "TestSleep"},
          {"inputs", {{"value", std::move(value)}, {"seconds", seconds}}}};
}

/// Sleeping nodes called 1, 2, ... and the average of what they pass on.
void expand_to_sleeps(Call& call, const std::vector<std::string>& images,
                      const std::vector<double>& seconds) {
  Json nodes = Json::object(), inputs = Json::object();
  for (std::size_t i = 0; i < images.size(); ++i) {
    auto number = std::to_string(i + 1);
    nodes[number] = sleep(call.hold(call.in(images[i])), seconds[i]);
    inputs["input" + number] = {number, 0};
  }
  nodes["average"] = {{"class_type", "TestVariadicAverage"}, {"inputs", std::move(inputs)}};
  call.expand(std::move(nodes));
  call.out_link(0, {"average", 0});
}

void run_dynamic(Call& call) {
  std::vector<std::string> images;
  for (int i = 0; i < call.integer("num_async_nodes"); ++i)
    images.push_back(i % 2 ? "image2" : "image1");
  expand_to_sleeps(call, images, std::vector<double>(images.size(), call.number("sleep_duration")));
}

void add_expanding(Catalog& catalog) {
  auto seconds = [](const char* name) {
    return number(name, {.def = 0.5, .min = 0.0, .max = 10.0, .step = 0.01});
  };
  catalog.add({.name = "TestParallelSleep",
               .category = "experimental",
               .inputs = {link("image1", "IMAGE"), link("image2", "IMAGE"), link("image3", "IMAGE"),
                          seconds("sleep1"), seconds("sleep2"), seconds("sleep3")},
               .hidden = {{"unique_id", "UNIQUE_ID"}},
               .outputs = {"IMAGE"},
               .output_node = true,
               .run = [](Call& call) {
                 expand_to_sleeps(
                     call, {"image1", "image2", "image3"},
                     {call.number("sleep1"), call.number("sleep2"), call.number("sleep3")});
               }});
  catalog.add({.name = "TestDynamicAsyncGeneration",
               .category = kCategory,
               .inputs = {link("image1", "IMAGE"), link("image2", "IMAGE"),
                          integer("num_async_nodes", {.def = 3, .min = 1, .max = 10}),
                          number("sleep_duration", {.def = 0.2, .min = 0.1, .max = 1.0})},
               .outputs = {"IMAGE"},
               .run = run_dynamic});
}

void add_checked(Catalog& catalog) {
  for (auto [name, limit] : {std::pair{"TestAsyncValidation", "threshold"},
                             std::pair{"TestAsyncValidationError", "max_value"}})
    catalog.add({.name = name,
                 .category = kCategory,
                 .inputs = {number("value", {.def = 5.0}), number(limit, {.def = 10.0})},
                 .outputs = {"IMAGE"},
                 .run = [](Call& call) { call.out(0, plain(call.number("value") / 10)); },
                 .checks = {{{"value", limit}, [limit = std::string(limit)](const Call& call) {
                               return too_large(call, limit.c_str());
                             }}}});
  catalog.add({.name = "TestAsyncLazyCheck",
               .category = kCategory,
               .inputs = {link("input1", "*", {.lazy = true}), link("input2", "*", {.lazy = true}),
                          boolean("condition", {.def = true})},
               .outputs = {"IMAGE"},
               .run = [](Call& call) { call.out(0, plain(1)); },
               .needed_lazy = [](const Call& call) -> std::vector<std::string> {
                 return {call.boolean("condition") ? "input1" : "input2"};
               }});
}

}  // namespace

void add_waiting_nodes(Catalog& catalog) {
  auto add = [&](const char* name, std::vector<Input> inputs, std::function<void(Call&)> run,
                 bool background = true, std::vector<Hidden> hidden = {}) {
    inputs.insert(inputs.begin(), link("value", "*", {.extra = Json::object()}));
    catalog.add({.name = name,
                 .category = kCategory,
                 .inputs = std::move(inputs),
                 .hidden = std::move(hidden),
                 .outputs = {"*"},
                 .background = background,
                 .run = std::move(run)});
  };
  // It asks for its id, so that no two of them share a result.
  add("TestSleep", {number("seconds", {.def = 1.0, .min = 0.0, .max = 9999.0, .step = 0.01})},
      [](Call& call) {
        wait(call, call.number("seconds"), true);
        pass(call);
      },
      true, {{"unique_id", "UNIQUE_ID"}});
  add("TestAsyncError", {number("error_after", {.def = 0.1, .min = 0.0, .max = 10.0})},
      [](Call& call) {
        wait(call, call.number("error_after"));
        throw std::runtime_error("failed in the background, as a test wants it");
      });
  add(
      "TestSyncError", {},
      [](Call&) { throw std::runtime_error("failed at once, as a test wants it"); }, false);
  add("TestAsyncTimeout",
      {number("timeout", {.def = 1.0, .min = 0.1, .max = 10.0}),
       number("operation_time", {.def = 2.0, .min = 0.1, .max = 10.0})},
      run_timeout);
  add("TestAsyncResourceUser",
      {text("resource_id", {.def = "resource_0"}),
       number("duration", {.def = 0.1, .min = 0.0, .max = 1.0})},
      run_resource);
  for (const char* name : {"TestAsyncProgressUpdate", "TestSyncProgressUpdate"})
    add(
        name, {number("sleep_seconds", {.def = 1.0})},
        [](Call& call) {
          wait(call, call.number("sleep_seconds"), true);
          pass(call);
        },
        name == std::string_view("TestAsyncProgressUpdate"));
  catalog.add({.name = "TestAsyncBatchProcessing",
               .category = kCategory,
               .inputs = {link("images", "IMAGE"),
                          number("process_time_per_item", {.def = 0.1, .min = 0.01, .max = 1.0})},
               .hidden = {{"unique_id", "UNIQUE_ID"}},
               .outputs = {"IMAGE"},
               .background = true,
               .run = run_batch});
  add_expanding(catalog);
  add_checked(catalog);
}

}  // namespace distorch::testing_nodes
