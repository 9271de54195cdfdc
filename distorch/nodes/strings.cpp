#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/graph/json_text.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/python_regex.h"
#include "distorch/nodes/python_text.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Value;
using Text = std::u32string;

namespace {

Text characters(const Call& call, const char* name) { return characters_of(call.text(name)); }

void out(Call& call, const Text& text) { call.out(0, Value::constant(utf8_of(text))); }

void run_concatenate(Call& call) {
  call.out(0,
           Value::constant(call.text("string_a") + call.text("delimiter") + call.text("string_b")));
}

/// Negative places count from the end.
void run_substring(Call& call) {
  auto text = characters(call, "string");
  auto length = static_cast<std::int64_t>(text.size());
  auto place = [&](const char* name) {
    auto at = call.integer(name);
    return std::clamp<std::int64_t>(at < 0 ? at + length : at, 0, length);
  };
  auto start = place("start"), end = place("end");
  out(call, end > start ? text.substr(static_cast<std::size_t>(start),
                                      static_cast<std::size_t>(end - start))
                        : Text());
}

void run_length(Call& call) {
  call.out(0, Value::constant(static_cast<std::int64_t>(characters(call, "string").size())));
}

void run_case(Call& call) {
  auto text = characters(call, "string");
  auto mode = call.text("mode");
  out(call, mode == "UPPERCASE"    ? upper(text)
            : mode == "lowercase"  ? lower(text)
            : mode == "Capitalize" ? capitalized(text)
                                   : titled(text));
}

void run_trim(Call& call) {
  auto text = characters(call, "string");
  auto mode = call.text("mode");
  auto first = text.begin(), last = text.end();
  if (mode != "Right") first = std::find_if_not(first, last, is_white_space);
  if (mode != "Left")
    while (last != first && is_white_space(*(last - 1))) --last;
  out(call, Text(first, last));
}

/// An empty `find` is found before each character and at the end.
void run_replace(Call& call) {
  auto text = characters(call, "string"), find = characters(call, "find"),
       replace = characters(call, "replace");
  Text result;
  std::size_t at = 0;
  for (;;) {
    auto found = text.find(find, at);
    if (found == Text::npos) break;
    result += text.substr(at, found - at) + replace;
    at = found + find.size();
    if (!find.empty()) continue;
    if (found == text.size()) break;
    result += text[at++];
  }
  if (at < text.size()) result += text.substr(at);
  out(call, result);
}

/// In lower case unless case counts.
Text comparable(const Call& call, const char* name) {
  auto text = characters(call, name);
  return call.boolean("case_sensitive") ? text : lower(text);
}

void run_contains(Call& call) {
  bool found = comparable(call, "string").find(comparable(call, "substring")) != Text::npos;
  call.out(0, Value::constant(found));
}

void run_compare(Call& call) {
  auto a = comparable(call, "string_a"), b = comparable(call, "string_b");
  auto mode = call.text("mode");
  bool holds = mode == "Equal" ? a == b : mode == "Ends With" ? a.ends_with(b) : a.starts_with(b);
  call.out(0, Value::constant(holds));
}

Regex regex_of(const Call& call) {
  return Regex(characters(call, "regex_pattern"), {.ignore_case = call.boolean("case_insensitive"),
                                                   .multiline = call.boolean("multiline"),
                                                   .dotall = call.boolean("dotall")});
}

/// A pattern that is none matches nothing.
std::optional<Regex> regex_if_valid(const Call& call) {
  try {
    return regex_of(call);
  } catch (const Error&) {
    return std::nullopt;
  }
}

void run_match(Call& call) {
  auto regex = regex_if_valid(call);
  call.out(0, Value::constant(regex && regex->search(characters(call, "string")).has_value()));
}

Text part(const Text& text, const Span& span) {
  return span ? text.substr(span->first, span->second - span->first) : Text();
}

void run_extract(Call& call) {
  auto regex = regex_if_valid(call);
  if (!regex) return out(call, {});
  auto text = characters(call, "string");
  auto mode = call.text("mode");
  bool all = mode.starts_with("All"), group = mode.ends_with("Group") || mode.ends_with("Groups");
  auto index = static_cast<std::size_t>(call.integer("group_index"));
  // All matches of a pattern with groups are told by the first group, as re.findall does.
  if (!group) index = all && regex->groups() > 0 ? 1 : 0;
  if (index > regex->groups() || (mode == "All Groups" && regex->groups() == 0))
    return out(call, {});
  if (!all) {
    auto match = regex->search(text);
    return out(call, match ? part(text, (*match)[index]) : Text());
  }
  Text result;
  bool first = true;
  for (const auto& match : regex->find_all(text)) {
    if (!first) result += U'\n';
    first = false;
    result += part(text, match[index]);
  }
  out(call, result);
}

void run_regex_replace(Call& call) {
  out(call, regex_of(call).replace(characters(call, "string"), characters(call, "replace"),
                                   static_cast<std::size_t>(call.integer("count"))));
}

/// "" for what is no JSON object, has no such key, or null there.
void run_json(Call& call) {
  auto data = graph::Json();
  try {
    data = graph::parse_json(call.text("json_string"), call.place());
  } catch (const Error&) {
    return out(call, {});
  }
  auto key = call.text("key");
  if (!data.is_object() || !data.contains(key) || data[key].is_null()) return out(call, {});
  call.out(0, Value::constant(graph::python_str(data[key])));
}

graph::Input text_of(const char* name) { return graph::text(name, {.multiline = true}); }

void add(graph::Catalog& catalog, const char* name, const char* title,
         std::vector<graph::Input> inputs, graph::Output output, void (*run)(Call&),
         const char* description = "", const char* category = "utils/string") {
  catalog.add({
      .name = name,
      .display_name = title,
      .category = category,
      .description = description,
      .python_module = "comfy_extras.nodes_string",
      .inputs = std::move(inputs),
      .outputs = {std::move(output)},
      .newer_schema = true,
      .run = run,
  });
}

void add_regex_nodes(graph::Catalog& catalog) {
  auto string = text_of("string"), pattern = text_of("regex_pattern"),
       ignore = boolean("case_insensitive", {.def = true}),
       lines = boolean("multiline", {.def = false}), dot = boolean("dotall", {.def = false});
  add(catalog, "RegexMatch", "Regex Match", {string, pattern, ignore, lines, dot},
      {"BOOLEAN", "matches"}, run_match);
  add(catalog, "RegexExtract", "Regex Extract",
      {string, pattern, choice("mode", {"First Match", "All Matches", "First Group", "All Groups"}),
       ignore, lines, dot, integer("group_index", {.def = 1, .min = 0, .max = 100})},
      "STRING", run_extract);
  add(catalog, "RegexReplace", "Regex Replace",
      {string, pattern, text_of("replace"), optional(ignore), optional(lines),
       optional(
           boolean("dotall", {.def = false, .tooltip = "A dot also stands for a line's end."})),
       optional(integer("count", {.def = 0,
                                  .min = 0,
                                  .max = 100,
                                  .tooltip = "So many matches are replaced, from the left; 0: "
                                             "every one."}))},
      "STRING", run_regex_replace, "Puts another text in the place of what a pattern matches.");
}

}  // namespace

void add_string_nodes(graph::Catalog& catalog) {
  auto string = text_of("string"), a = text_of("string_a"), b = text_of("string_b");
  auto exact = boolean("case_sensitive", {.def = true});
  add(catalog, "StringConcatenate", "Concatenate",
      {a, b, graph::text("delimiter", {.def = "", .multiline = false})}, "STRING", run_concatenate);
  add(catalog, "StringSubstring", "Substring", {string, integer("start"), integer("end")}, "STRING",
      run_substring);
  add(catalog, "StringLength", "Length", {string}, {"INT", "length"}, run_length);
  add(catalog, "CaseConverter", "Case Converter",
      {string, choice("mode", {"UPPERCASE", "lowercase", "Capitalize", "Title Case"})}, "STRING",
      run_case);
  add(catalog, "StringTrim", "Trim", {string, choice("mode", {"Both", "Left", "Right"})}, "STRING",
      run_trim);
  add(catalog, "StringReplace", "Replace", {string, text_of("find"), text_of("replace")}, "STRING",
      run_replace);
  add(catalog, "StringContains", "Contains", {string, text_of("substring"), exact},
      {"BOOLEAN", "contains"}, run_contains);
  add(catalog, "StringCompare", "Compare",
      {a, b, choice("mode", {"Starts With", "Ends With", "Equal"}), exact}, "BOOLEAN", run_compare);
  add(catalog, "JsonExtractString", "Extract Text from JSON",
      {text_of("json_string"), graph::text("key", {.multiline = false})}, "STRING", run_json, "",
      "text");
  add_regex_nodes(catalog);
}

}  // namespace distorch::nodes
