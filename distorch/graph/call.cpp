#include "distorch/graph/call.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "distorch/base/run_token.h"
#include "distorch/graph/catalog.h"

namespace distorch::graph {
namespace {

const Json kNull;

bool is_null(const Value& value) {
  return value.empty() || (value.is<Json>() && value.as<Json>().is_null());
}

}  // namespace

Call::Call(const NodeType& type, Inputs inputs)
    : type_(&type), inputs_(std::move(inputs)), outputs_(type.outputs.size()) {}

bool Call::has(const std::string& name) const {
  auto found = inputs_.values.find(name);
  return found != inputs_.values.end() && !found->second.empty() && !is_null(found->second.front());
}

const Value& Call::in(const std::string& name) const {
  if (has(name)) return inputs_.values.at(name).front();
  auto known = defaults_.find(name);
  if (known != defaults_.end()) return known->second;
  const Input* input = type_->find_input(name);
  if (!input)
    throw Error(ErrorKind::Internal, place(), fmt::format("has no input called '{}'", name));
  Json value = input->default_value();
  if (value.is_null()) refuse(name, "was not given and has no default");
  return defaults_.emplace(name, Value::constant(std::move(value))).first->second;
}

const Json& Call::scalar(const std::string& name) const {
  const Value& value = in(name);
  if (!value.is<Json>()) refuse(name, "is a " + value.type() + ", not a plain value");
  return value.as<Json>();
}

std::int64_t Call::integer(const std::string& name) const {
  const Json& value = scalar(name);
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_unsigned()) {
    auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      refuse(name, fmt::format("{} is too large", number));
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number_float()) {
    double number = std::trunc(value.get<double>());
    if (!(number >= -0x1p63 && number < 0x1p63))
      refuse(name, fmt::format("{} is not a 64-bit integer", number));
    return static_cast<std::int64_t>(number);
  }
  refuse(name, "is not a number: " + value.dump());
}

std::uint64_t Call::seed(const std::string& name) const {
  const Json& value = scalar(name);
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_number_float()) {
    double number = std::trunc(value.get<double>());
    if (number >= 0x1p63 && number <= 0x1p64)
      return number >= 0x1p64 ? std::numeric_limits<std::uint64_t>::max()
                              : static_cast<std::uint64_t>(number);
  }
  return static_cast<std::uint64_t>(integer(name));
}

double Call::number(const std::string& name) const {
  const Json& value = scalar(name);
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  if (!value.is_number()) refuse(name, "is not a number: " + value.dump());
  return value.get<double>();
}

std::string Call::text(const std::string& name) const {
  const Json& value = scalar(name);
  return value.is_string() ? value.get<std::string>() : value.dump();
}

bool Call::boolean(const std::string& name) const {
  const Json& value = scalar(name);
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  refuse(name, "is not a yes or no: " + value.dump());
}

const std::vector<Value>& Call::list(const std::string& name) const {
  static const std::vector<Value> none;
  auto found = inputs_.values.find(name);
  return found == inputs_.values.end() ? none : found->second;
}

std::vector<std::string> Call::given() const {
  std::vector<std::string> names;
  for (auto& [name, values] : inputs_.values) names.push_back(name);
  return names;
}

void Call::out(std::size_t slot, Value value) {
  if (slot >= outputs_.size())
    throw Error(ErrorKind::Internal, place(), fmt::format("has no output {}", slot));
  outputs_[slot] = {{std::move(value)}, {}};
}

void Call::out_list(std::size_t slot, std::vector<Value> values) {
  if (slot >= outputs_.size() || !type_->outputs[slot].is_list)
    throw Error(ErrorKind::Internal, place(), fmt::format("has no list output {}", slot));
  outputs_[slot] = {std::move(values), {}};
}

void Call::ui(Json output) {
  if (!output.is_object()) throw Error(ErrorKind::Internal, place(), "ui output is not an object");
  if (ui_.is_null()) ui_ = Json::object();
  for (auto& [key, values] : output.items()) {
    Json& all = ui_[key];
    if (all.is_null()) all = Json::array();
    if (values.is_array())
      for (auto& value : values) all.push_back(value);
    else
      all.push_back(values);
  }
}

void Call::expand(Json nodes) {
  if (!nodes.is_object())
    throw Error(ErrorKind::Internal, place(), "expands to something that is no graph");
  expansion_ = std::move(nodes);
}

void Call::out_link(std::size_t slot, LocalLink link) {
  if (slot >= outputs_.size())
    throw Error(ErrorKind::Internal, place(), fmt::format("has no output {}", slot));
  outputs_[slot] = {{}, {std::move(link)}};
}

Json Call::hold(Value value) {
  held_.push_back(std::move(value));
  return {{kHeldInCall, held_.size() - 1}};
}

void Call::progress(double value, double max) {
  throw_if_interrupted();
  if (inputs_.listener) inputs_.listener->on_progress(value, max);
}

void Call::preview(const Value& image) {
  if (inputs_.listener) inputs_.listener->on_preview(image);
}

std::string Call::place() const {
  return inputs_.node_id.empty() ? type_->name
                                 : fmt::format("node {} ({})", inputs_.node_id, type_->name);
}

const Json& Call::prompt() const { return inputs_.prompt ? *inputs_.prompt : kNull; }

const Json& Call::extra_pnginfo() const {
  return inputs_.extra_pnginfo ? *inputs_.extra_pnginfo : kNull;
}

const Json* Call::node_of_run(const std::string& id) const {
  if (inputs_.find_node) return inputs_.find_node(id);
  auto found = prompt().find(id);
  return found == prompt().end() ? nullptr : &*found;
}

const Context& Call::find_context() const {
  if (!inputs_.context) throw Error(ErrorKind::Internal, place(), "runs without a context");
  return *inputs_.context;
}

void Call::refuse(const std::string& name, const std::string& sentence) const {
  throw Error(ErrorKind::Usage, place(), fmt::format("input '{}' {}", name, sentence));
}

std::vector<Value> run_node(const NodeType& type, const std::map<std::string, Value>& inputs,
                            const Context& context) {
  Call::Inputs given;
  for (auto& [name, value] : inputs) given.values[name] = {value};
  given.context = &context;
  Call call(type, std::move(given));
  context.enter([&] { type.run(call); });
  std::vector<Value> results;
  for (auto& output : call.outputs())
    results.insert(results.end(), output.values.begin(), output.values.end());
  return results;
}

}  // namespace distorch::graph
