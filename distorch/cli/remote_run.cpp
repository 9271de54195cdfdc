#include "distorch/cli/remote_run.h"

#include <fmt/format.h>

#include <random>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/graph/executor.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/ui_to_api.h"
#include "distorch/server/address.h"
#include "distorch/server/remote.h"

namespace distorch::cli {

using graph::Json;
using server::Remote;

namespace {

std::string text_in(const Json& data, const char* key) {
  auto found = data.find(key);
  return found != data.end() && found->is_string() ? found->get<std::string>() : "";
}

double number_in(const Json& data, const char* key) {
  auto found = data.find(key);
  return found != data.end() && found->is_number() ? found->get<double>() : 0;
}

std::vector<std::string> texts_in(const Json& data, const char* key) {
  std::vector<std::string> texts;
  auto found = data.find(key);
  if (found == data.end() || !found->is_array()) return texts;
  for (const auto& text : *found)
    if (text.is_string()) texts.push_back(text.get<std::string>());
  return texts;
}

graph::ExecutionError error_in(const Json& data) {
  graph::ExecutionError error;
  error.prompt_id = text_in(data, "prompt_id");
  error.node_id = text_in(data, "node_id");
  error.node_type = text_in(data, "node_type");
  error.executed = texts_in(data, "executed");
  error.exception_message = text_in(data, "exception_message");
  error.exception_type = text_in(data, "exception_type");
  error.traceback = texts_in(data, "traceback");
  error.timestamp = static_cast<std::int64_t>(number_in(data, "timestamp"));
  return error;
}

std::string random_id() {
  std::random_device source;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", source(), source(), source(), source());
}

Json asked(Remote::Answer answer, const std::string& where) {
  if (answer.status == 200) return graph::parse_json(answer.body, where);
  throw Error(ErrorKind::Format, where, fmt::format("answers {}: {}", answer.status, answer.body));
}

/// What a refused prompt is told: the sentence and each node's problems, a line each.
[[noreturn]] void refused(const Remote::Answer& answer, const std::string& where) {
  std::string text = fmt::format("the server refuses it ({})", answer.status);
  try {
    auto json = graph::parse_json(answer.body, where);
    const auto& error = json["error"];
    text = "the server refuses it: " +
           (error.is_object() ? text_in(error, "message") : graph::python_str(error));
    if (json.contains("node_errors"))
      for (const auto& [id, node] : json["node_errors"].items())
        for (const auto& problem : node["errors"])
          text += fmt::format("\n  node {} ({}): {}: {}", id, text_in(node, "class_type"),
                              text_in(problem, "message"), text_in(problem, "details"));
  } catch (const std::exception&) {
    text += ": " + answer.body;
  }
  throw Error(ErrorKind::Format, where, text);
}

/// Brings the files of an `executed` message here; the names in it become those they have here.
class Collector {
 public:
  Collector(Remote& remote, std::filesystem::path folder)
      : remote_(remote), folder_(std::move(folder)) {}

  void bring(graph::Executed& event) {
    if (!event.output.is_object()) return;
    for (auto& [kind, files] : event.output.items()) {
      if (!files.is_array()) continue;
      for (auto& file : files)
        if (file.is_object() && file.contains("filename") && text_in(file, "type") == "output")
          file["filename"] = bring(text_in(file, "filename"), text_in(file, "subfolder"));
    }
  }

 private:
  static bool stays_inside(const std::filesystem::path& relative) {
    if (relative.is_absolute() || relative.has_root_name()) return false;
    for (const auto& part : relative)
      if (part == "..") return false;
    return true;
  }

  std::string bring(const std::string& name, const std::string& subfolder) {
    std::filesystem::path relative = std::filesystem::path(subfolder) / name;
    if (name.empty() || !stays_inside(relative) || std::filesystem::path(name).has_parent_path())
      throw Error(ErrorKind::Format, name, "is no name that a server may give a picture here");
    auto answer =
        remote_.get(fmt::format("/view?filename={}&subfolder={}&type=output",
                                server::percent_encoded(name), server::percent_encoded(subfolder)));
    if (answer.status != 200)
      throw Error(ErrorKind::Format, name,
                  fmt::format("cannot be fetched: the server answers {}", answer.status));
    auto folder = folder_ / subfolder;
    std::filesystem::create_directories(folder);
    auto path = free_name(folder, name);
    write_file(path, answer.body);
    return path.filename().string();
  }

  static std::filesystem::path free_name(const std::filesystem::path& folder,
                                         const std::filesystem::path& name) {
    auto path = folder / name;
    for (int i = 1; std::filesystem::exists(path); ++i)
      path = folder / fmt::format("{} ({}){}", name.stem().string(), i, name.extension().string());
    return path;
  }

  Remote& remote_;
  std::filesystem::path folder_;
};

/// Follows one prompt to its end.
class Follower {
 public:
  Follower(Remote& remote, graph::EventSink& reporter, Collector& collector, std::string prompt_id)
      : remote_(remote),
        reporter_(reporter),
        collector_(collector),
        prompt_id_(std::move(prompt_id)) {}

  void follow() {
    constexpr std::chrono::milliseconds glance(200);
    auto token = current_run();
    bool told = false;
    while (!ended_) {
      if (token && token->interrupted() && !told) {
        remote_.post("/interrupt", {{"prompt_id", prompt_id_}});
        remote_.post("/queue", {{"delete", Json::array({prompt_id_})}});
        told = true;
        stopped_ = true;
      }
      auto message = remote_.next(glance);
      if (message) take(*message);
      // A prompt that only waited leaves no trace: nothing more will come.
      if (stopped_ && !message && !started_) break;
    }
    if (error_) throw *error_;
    if (stopped_) throw Error(ErrorKind::Interrupted, "", "interrupted");
  }

 private:
  void take(const Json& message) {
    if (!message.is_object() || !message.contains("data") || !message["data"].is_object()) return;
    if (text_in(message["data"], "prompt_id") != prompt_id_) return;
    auto event = event_of(message);
    if (!event) return;
    started_ = true;
    if (auto* executed = std::get_if<graph::Executed>(&*event)) collector_.bring(*executed);
    if (const auto* error = std::get_if<graph::ExecutionError>(&*event)) note(*error);
    if (std::holds_alternative<graph::ExecutionInterrupted>(*event)) stopped_ = true;
    reporter_.send(*event);
    const auto* executing = std::get_if<graph::Executing>(&*event);
    ended_ = executing && !executing->node;
  }

  void note(const graph::ExecutionError& error) {
    auto sentence = error.exception_message;
    while (sentence.ends_with('\n')) sentence.pop_back();
    auto place = error.node_id.empty()
                     ? std::string("workflow")
                     : fmt::format("node {} ({})", error.node_id, error.node_type);
    error_ = Error(ErrorKind::Format, place, sentence);
  }

  Remote& remote_;
  graph::EventSink& reporter_;
  Collector& collector_;
  std::string prompt_id_;
  bool ended_ = false, stopped_ = false, started_ = false;
  std::optional<Error> error_;
};

}  // namespace

std::optional<graph::Event> event_of(const Json& message) {
  auto type = text_in(message, "type");
  auto found = message.find("data");
  if (found == message.end() || !found->is_object()) return {};
  const auto& data = *found;
  auto id = text_in(data, "prompt_id");
  auto time = static_cast<std::int64_t>(number_in(data, "timestamp"));
  if (type == "execution_start") return graph::ExecutionStart{id, time};
  if (type == "execution_cached") return graph::ExecutionCached{id, texts_in(data, "nodes"), time};
  if (type == "executing") {
    auto node = text_in(data, "node");
    return graph::Executing{id, node.empty() ? std::nullopt : std::optional(node),
                            text_in(data, "display_node")};
  }
  if (type == "progress")
    return graph::Progress{id, text_in(data, "node"), number_in(data, "value"),
                           number_in(data, "max")};
  if (type == "executed")
    return graph::Executed{id, text_in(data, "node"), text_in(data, "display_node"),
                           data.contains("output") ? data["output"] : Json()};
  if (type == "execution_success") return graph::ExecutionSuccess{id, time};
  if (type == "execution_error") return error_in(data);
  if (type == "execution_interrupted")
    return graph::ExecutionInterrupted{id, text_in(data, "node_id"), text_in(data, "node_type"),
                                       texts_in(data, "executed"), time};
  return {};
}

int run_remotely(const RemoteOptions& options, const std::string& text, const std::string& where) {
  Remote remote(options.server, options.token);
  auto info = asked(remote.get("/object_info"), options.server);
  graph::ConvertOptions convert;
  convert.where = where;
  auto prompt = graph::load_prompt(text, graph::Definitions(info), convert);
  for (const auto& note : prompt.notes) log::info("{}", note);
  if (options.change) options.change(prompt.nodes);

  auto client = random_id();
  remote.listen(client);
  Json extra = Json::object();
  if (!prompt.workflow.is_null()) extra["extra_pnginfo"] = {{"workflow", prompt.workflow}};
  auto answer = remote.post(
      "/prompt", {{"prompt", prompt.nodes}, {"client_id", client}, {"extra_data", extra}});
  if (answer.status != 200) refused(answer, where);
  auto accepted = graph::parse_json(answer.body, options.server);

  nodes::Settings settings;
  settings.output_folder = options.output;
  auto reporter = make_reporter(options.reporting, prompt.nodes, settings);
  Collector collector(remote, options.output);
  Follower(remote, *reporter, collector, text_in(accepted, "prompt_id")).follow();
  return 0;
}

}  // namespace distorch::cli
