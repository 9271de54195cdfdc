#pragma once
// Small node types for the tests of this folder.
#include <map>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/graph/events.h"
#include "distorch/graph/json_text.h"

namespace distorch::graph::testing {

/// How often each node type ran, and what it saw.
struct Journal {
  std::vector<std::string> runs;              // "id type"
  std::map<std::string, std::string> change;  // read by the change keys of Watched
  int fail_at = -1;
  int count(const std::string& type) const {
    int found = 0;
    for (auto& run : runs) found += run.substr(run.find(' ') + 1) == type;
    return found;
  }
};

inline void note(Call& call) {
  if (call.has_context<Journal>())
    call.context<Journal>().runs.push_back(call.node_id() + " " + call.node_type().name);
}

inline Catalog fake_catalog() {
  Catalog catalog;
  catalog.add(
      {.name = "Number",
       .inputs = {integer("value", {.def = 1, .min = -100, .max = 18446744073709551615ull})},
       .outputs = {"INT"},
       .run = [](Call& call) {
         note(call);
         call.out(0, Value::constant(call.integer("value")));
       }});
  catalog.add({.name = "Add",
               .inputs = {integer("a", {.def = 0}), optional(integer("b", {.def = 10}))},
               .outputs = {"INT"},
               .run = [](Call& call) {
                 note(call);
                 call.out(0, Value::constant(call.integer("a") + call.integer("b")));
               }});
  catalog.add({.name = "Count",  // a list 0 .. n-1
               .inputs = {integer("n", {.def = 3, .min = 0})},
               .outputs = {{"INT", "", "", true}},
               .run = [](Call& call) {
                 note(call);
                 std::vector<Value> values;
                 for (int i = 0; i < call.integer("n"); ++i) values.push_back(Value::constant(i));
                 call.out_list(0, values);
               }});
  catalog.add({.name = "Sum",  // takes lists whole
               .inputs = {integer("values"), integer("k", {.def = 1})},
               .outputs = {"INT"},
               .input_is_list = true,
               .run = [](Call& call) {
                 note(call);
                 std::int64_t sum = 0;
                 for (auto& value : call.list("values"))
                   sum += value.as<Json>().get<std::int64_t>();
                 call.out(
                     0, Value::constant(sum * call.list("k").at(0).as<Json>().get<std::int64_t>()));
               }});
  catalog.add({.name = "Show",
               .inputs = {link("x", "*"), optional(text("tag", {.def = ""}))},
               .output_node = true,
               .run = [](Call& call) {
                 note(call);
                 call.ui({{"text", {python_str(call.get<Json>("x"))}}});
               }});
  catalog.add({.name = "Pick",  // evaluates only the branch that it takes
               .inputs = {boolean("first"), link("a", "INT", {.lazy = true}),
                          link("b", "INT", {.lazy = true})},
               .outputs = {"INT"},
               .run =
                   [](Call& call) {
                     note(call);
                     call.out(0, call.in(call.boolean("first") ? "a" : "b"));
                   },
               .needed_lazy =
                   [](const Call& call) {
                     return std::vector<std::string>{call.boolean("first") ? "a" : "b"};
                   }});
  catalog.add(
      {.name = "Twice",  // expands to Add(x, x)
       .inputs = {link("x", "INT")},
       .outputs = {"INT"},
       .run = [](Call& call) {
         note(call);
         std::int64_t x = call.integer("x");
         call.expand(
             {{"n", {{"class_type", "Number"}, {"inputs", {{"value", x}}}}},
              {"sum", {{"class_type", "Add"}, {"inputs", {{"a", {"n", 0}}, {"b", {"n", 0}}}}}}});
         call.out_link(0, {"sum", 0});
       }});
  catalog.add({.name = "Block",
               .inputs = {text("message", {.def = ""})},
               .outputs = {"INT"},
               .run = [](Call& call) {
                 note(call);
                 std::string message = call.text("message");
                 call.out(0,
                          Value::blocker(message.empty() ? std::nullopt : std::optional(message)));
               }});
  catalog.add({.name = "Fail",
               .inputs = {link("x", "INT"), text("how", {.def = "error"})},
               .outputs = {"INT"},
               .run = [](Call& call) {
                 note(call);
                 if (call.text("how") == "memory")
                   throw Error(ErrorKind::OutOfMemory, "cuda:0", "no room for 5 GiB");
                 throw Error(ErrorKind::Usage, call.place(), "x is odd");
               }});
  catalog.add({.name = "Steps",
               .inputs = {integer("n", {.def = 3})},
               .outputs = {"INT"},
               .run = [](Call& call) {
                 note(call);
                 for (int i = 1; i <= call.integer("n"); ++i) {
                   call.preview(Value::of("IMAGE", i));
                   call.progress(i, static_cast<double>(call.integer("n")));
                 }
                 call.out(0, Value::constant(call.integer("n")));
               }});
  catalog.add({.name = "Watched",  // its change key is read from the journal; "?" never matches
               .inputs = {text("file")},
               .outputs = {"STRING"},
               .run =
                   [](Call& call) {
                     note(call);
                     call.out(0, Value::constant(call.text("file")));
                   },
               .change_key = [](const Call& call) -> std::optional<std::string> {
                 std::string value = call.context<Journal>().change[call.text("file")];
                 if (value == "?") return std::nullopt;
                 return value;
               }});
  catalog.add({.name = "Own",  // asks for its id: shares nothing
               .inputs = {integer("value")},
               .hidden = {{"unique_id", "UNIQUE_ID"}},
               .outputs = {"INT"},
               .run = [](Call& call) {
                 note(call);
                 int& calls = call.state<int>();
                 call.out(0, Value::constant(++calls));
               }});
  catalog.add({.name = "Image",
               .inputs = {choice("name", {"a.png", "b.png"}, {.image_upload = true})},
               .outputs = {"IMAGE", "MASK"},
               .run = note,
               .checks = {{{"name"}, [](const Call& call) {
                             std::string name = call.text("name");
                             return name.find(".png") == std::string::npos
                                        ? "Invalid image file: " + name
                                        : "";
                           }}}});
  catalog.add({.name = "Sampler",
               .inputs = {link("image", "IMAGE,LATENT"),
                          integer("steps", {.def = 20, .min = 1, .max = 10000}),
                          number("cfg", {.def = 8.0, .min = 0.0, .max = 100.0}),
                          choice("sampler_name", {"euler", "heun", "lms"}),
                          boolean("flag", {.def = false}), optional(text("label"))},
               .outputs = {"IMAGE"},
               .run = note});
  catalog.add({.name = "Save",
               .inputs = {link("images", "IMAGE"), text("filename_prefix", {.def = "x"})},
               .output_node = true,
               .run = note});
  return catalog;
}

inline Json prompt_of(const char* text) { return parse_json(text, "prompt"); }

/// Keeps everything that was sent, as "type node" lines and as JSON.
struct Recorder : EventSink {
  void send(const Event& event) override {
    all.push_back(to_json(event));
    std::string line = type_of(event);
    if (auto* e = std::get_if<Executing>(&event)) line += " " + e->node.value_or("null");
    if (auto* e = std::get_if<Executed>(&event)) line += " " + e->node;
    if (std::holds_alternative<Progress>(event))
      line += " " + python_str(to_json(event)["data"]["value"]);
    if (auto* e = std::get_if<ProgressState>(&event))
      line += " " + e->nodes.back().node_id + " " + e->nodes.back().state;
    lines.push_back(line);
  }
  Json last(const std::string& type) const {
    for (auto it = all.rbegin(); it != all.rend(); ++it)
      if ((*it)["type"] == type) return (*it)["data"];
    return nullptr;
  }
  int count(const std::string& type) const {
    int found = 0;
    for (auto& event : all) found += event["type"] == type;
    return found;
  }
  std::vector<Json> all;
  std::vector<std::string> lines;
};

}  // namespace distorch::graph::testing
