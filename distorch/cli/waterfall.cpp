#include "distorch/cli/waterfall.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>

#include "distorch/base/link_clock.h"

namespace distorch::cli {

using graph::Json;
using streaming::EngineEvent;

namespace {

bool has(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

/// Bytes per second from RAM to a device; 0 where nobody knows.
double link_of(const streaming::Machine& machine, const std::string& device) {
  const auto system = machine.system(device);
  LinkClock links(system.links, system.roots);
  const int route = links.route("cpu", device);
  return route < 0 ? 0 : links.bytes_per_s(route);
}

}  // namespace

double seconds_since_start() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  // Behind the program's name, which may hold anything, the 20th field is the start in ticks.
  constexpr int fields_before = 19;
  auto behind = text.rfind(')');
  if (behind == std::string::npos) return 0;
  std::istringstream numbers(text.substr(behind + 1));
  std::string field;
  for (int i = 0; i < fields_before && numbers >> field; ++i) {
  }
  double started = 0;
  timespec now{};
  if (!(numbers >> started) || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 -
         started / static_cast<double>(sysconf(_SC_CLK_TCK));
}

Waterfall::Waterfall(const streaming::Machine& machine, const graph::Catalog& catalog,
                     const Json& prompt, graph::EventSink& next)
    : machine_(machine), catalog_(catalog), prompt_(prompt), next_(next), mark_(Clock::now()) {
  streaming::engine_watch().observe(this);
}

Waterfall::~Waterfall() { streaming::engine_watch().observe(nullptr); }

WaterfallPart& Waterfall::part(const std::string& name) {
  for (auto& known : parts_)
    if (known.name == name) return known;
  return parts_.emplace_back(WaterfallPart{name, 0, {}, ""});
}

void Waterfall::add(const std::string& name, double seconds) {
  std::lock_guard lock(mutex_);
  part(name).seconds += seconds;
}

std::string Waterfall::part_of(const std::string& node) const {
  auto entry = prompt_.find(node);
  const auto type =
      entry == prompt_.end() ? nullptr : catalog_.find((*entry).value("class_type", std::string()));
  if (!type) return "other nodes";
  std::vector<std::string> in, out;
  for (const auto& input : type->inputs) in.push_back(input.type);
  for (const auto& output : type->outputs) out.push_back(output.type);
  const bool takes_model = has(in, "MODEL") || has(in, "GUIDER");
  if (takes_model && has(out, "LATENT")) return "steps";
  if (has(in, "CLIP") && has(out, "CONDITIONING")) return "text encoders";
  if (has(in, "VAE")) return "VAE";
  if (type->output_node) return "saving";
  for (const char* opened : {"MODEL", "CLIP", "VAE", "CONTROL_NET"})
    if (has(out, opened) && !has(in, opened)) return "opening";
  return "other nodes";
}

/// All since the mark belongs to this part.
void Waterfall::pass(const std::string& name, Clock::time_point now) {
  part(name).seconds += std::chrono::duration<double>(now - mark_).count();
  mark_ = now;
}

/// The engine's own prediction for steps of the models that the node has used: the first, another one,
/// or all that they were planned for.
void Waterfall::limit_steps(const std::string& name, Steps which) {
  // Replicas of a model have its name and compute at the same time.
  std::map<std::string, double> by_model;
  for (const auto& model : streaming::engine_watch().state().models)
    if (models_.count(model.model)) {
      auto step_s =
          which != Steps::Next && model.first_step_s > 0 ? model.first_step_s : model.step_s;
      if (which == Steps::All) step_s += (std::max(model.steps, 1.0) - 1) * model.step_s;
      by_model[model.model] = std::max(by_model[model.model], step_s);
    }
  double seconds = 0;
  for (const auto& [model, each] : by_model) seconds += each;
  if (seconds <= 0) return;
  auto& one = part(name);
  one.limit_s = one.limit_s.value_or(0) + seconds;
  one.limit = "predicted computing and links";
}

void Waterfall::send(const graph::Event& event) {
  {
    std::lock_guard lock(mutex_);
    thread_ = std::this_thread::get_id();
    const auto now = Clock::now();
    if (const auto* executing = std::get_if<graph::Executing>(&event)) {
      const auto kind = node_.empty() ? std::string("other nodes") : part_of(node_);
      // What follows a sampler's last step is not a step.
      pass(kind == "steps" && steps_ > 0 ? "after the steps" : kind, now);
      if (kind == "text encoders" || kind == "VAE") limit_steps(kind, Steps::All);
      node_ = executing->node.value_or("");
      models_.clear();
      steps_ = 0;
    } else if (std::get_if<graph::Progress>(&event) && part_of(node_) == "steps") {
      const bool first = steps_++ == 0;
      pass(first ? "first step" : "steps", now);
      limit_steps(first ? "first step" : "steps", first ? Steps::First : Steps::Next);
    }
  }
  next_.send(event);
}

void Waterfall::changed(const EngineEvent& event) {
  std::lock_guard lock(mutex_);
  // What comes next is brought by another thread, beside what is counted here.
  if (node_.empty() || thread_ != std::this_thread::get_id()) return;
  models_.insert(event.model);
  const auto now = Clock::now();
  if (event.kind == EngineEvent::Kind::Planned) pass("plans", now);
  if (event.kind != EngineEvent::Kind::Placed) return;
  pass("weights", now);
  const auto state = streaming::engine_watch().state();
  for (const auto& model : state.models) {
    if (model.model != event.model || model.compute != event.device) continue;
    std::int64_t bytes = 0;
    for (const auto& share : model.shares)
      if (share.how == placement::How::Resident || share.how == placement::How::OnDonor)
        bytes += share.bytes;
    const auto speed = link_of(machine_, model.compute);
    if (speed <= 0 || model.compute == "cpu") continue;
    auto& weights = part("weights");
    weights.limit_s = weights.limit_s.value_or(0) + static_cast<double>(bytes) / speed;
    weights.limit = "bytes over the link";
  }
}

std::vector<WaterfallPart> Waterfall::parts() const {
  std::lock_guard lock(mutex_);
  auto parts = parts_;
  std::erase_if(parts, [](const WaterfallPart& part) {
    constexpr double nothing = 5e-5;
    return part.seconds < nothing && !part.limit_s;
  });
  return parts;
}

std::string Waterfall::text(const std::string& title) const {
  auto text = fmt::format("{:<18}{:>9}  {:>9}\n", title, "seconds", "limit");
  double sum = 0;
  for (const auto& part : parts()) {
    sum += part.seconds;
    text += part.limit_s ? fmt::format("  {:<16}{:>9.3f}  {:>9.3f}  {}\n", part.name, part.seconds,
                                       *part.limit_s, part.limit)
                         : fmt::format("  {:<16}{:>9.3f}\n", part.name, part.seconds);
  }
  return text + fmt::format("  {:<16}{:>9.3f}\n", "in all", sum);
}

Json Waterfall::json() const {
  auto list = Json::array();
  for (const auto& part : parts()) {
    Json one{{"part", part.name}, {"seconds", part.seconds}};
    if (part.limit_s) one.update({{"limit_s", *part.limit_s}, {"limit", part.limit}});
    list.push_back(std::move(one));
  }
  return list;
}

}  // namespace distorch::cli
