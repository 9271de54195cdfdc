#include "distorch/server/job_stream.h"

#include <algorithm>

#include "distorch/graph/json_text.h"
#include "distorch/server/base64.h"

namespace distorch::server {

namespace {

using namespace std::chrono_literals;

constexpr auto kLook = 100ms;   // between two looks at the job
constexpr auto kPause = 500ms;  // between two events that are sent again and again
constexpr auto kKeepAlive = 15s;
// A job that was there is looked for so often before it counts as gone: it may be on its way from
// the queue into the history.
constexpr int kLooksForAbsent = 10;

}  // namespace

JobStream::JobStream(JobsV2& jobs, std::string id, std::string base)
    : jobs_(jobs), id_(std::move(id)), base_(std::move(base)), watch_(jobs.feed(), id_) {}

void JobStream::add(const char* event, const Json& data) {
  text_ += std::string("event: ") + event + "\ndata: " + graph::json_line(data) + "\n\n";
}

/// Whether `pause` is over since `last`; else it is remembered when it will be.
bool JobStream::is_due(Clock::time_point last, Clock::duration pause) {
  auto over = last + pause - Clock::now();
  if (over <= Clock::duration::zero()) return true;
  again_ = std::min(again_, over);
  return false;
}

void JobStream::add_status(const Json& job) {
  auto status = job["status"].get<std::string>();
  const auto& position = job["queue_position"];
  if (status == status_ && position == position_) return;
  status_ = status;
  position_ = position;
  Json data = {{"status", status}};
  if (!position.is_null()) data["queue_position"] = position;
  add("status", data);
}

void JobStream::add_outputs(const Json& job) {
  for (const auto& output : job["outputs"])
    if (outputs_.insert(output["id"].get<std::string>()).second) add("output", output);
}

void JobStream::add_progress(const Json& job) {
  const auto& progress = job["progress"];
  if (progress.is_null() || progress == progress_ || !is_due(progress_sent_, kPause)) return;
  progress_ = progress;
  progress_sent_ = Clock::now();
  add("progress", progress);
}

void JobStream::add_preview() {
  if (!is_due(preview_sent_, kPause)) return;
  auto picture = watch_.take_picture();
  if (!picture) return;
  preview_sent_ = Clock::now();
  add("preview", {{"node_id", picture->node},
                  {"content_type", picture->content_type},
                  {"data_base64", base64_of(picture->bytes)}});
}

BodyStream::Piece JobStream::next() {
  again_ = kKeepAlive;
  if (!is_due(looked_, kLook))
    return {"", false, std::chrono::ceil<std::chrono::milliseconds>(again_)};
  looked_ = Clock::now();
  text_.clear();
  bool ended = false;
  auto job = jobs_.job(id_, base_);
  if (job.is_null()) {
    ended = ++absent_ >= kLooksForAbsent;
    if (ended) add("status", {{"status", "expired"}});
    again_ = kLook;
  } else {
    absent_ = 0;
    ended = is_final(job["status"].get<std::string>());
    if (!ended) add_status(job);
    if (!ended) add_progress(job);
    add_preview();
    add_outputs(job);
    if (ended) add_status(job);
  }
  if (text_.empty() && is_due(sent_, kKeepAlive)) text_ = ": keep-alive\n\n";
  if (!text_.empty()) sent_ = Clock::now();
  return {text_, ended, std::chrono::ceil<std::chrono::milliseconds>(again_)};
}

}  // namespace distorch::server
