#pragma once
#include <chrono>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "distorch/server/body_stream.h"
#include "distorch/server/job_v2.h"

namespace distorch::server {

/// A job as server-sent events until it has ended: "status" at once and at each change, "progress"
/// and "preview" at most twice a second, "output" as soon as a node has one, and last the final
/// "status". Each event is complete by itself: who comes late or again misses nothing that counts.
class JobStream final : public BodyStream {
 public:
  /// `jobs` must outlive it.
  JobStream(JobsV2& jobs, std::string id, std::string base);
  Piece next() override;
  void wake_with(std::function<void()> wake) override { watch_.wake_with(std::move(wake)); }

 private:
  using Clock = std::chrono::steady_clock;
  void add(const char* event, const Json& data);
  void add_status(const Json& job);
  void add_outputs(const Json& job);
  void add_progress(const Json& job);
  void add_preview();
  bool is_due(Clock::time_point last, Clock::duration pause);

  JobsV2& jobs_;
  const std::string id_, base_;
  JobFeed::Watch watch_;
  std::string text_;         // of the next piece
  Clock::duration again_{};  // until something that came too early is due
  Clock::time_point looked_{}, sent_{}, progress_sent_{}, preview_sent_{};
  std::string status_;
  Json position_, progress_;
  std::set<std::string> outputs_;
  int absent_ = 0;
};

}  // namespace distorch::server
