#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::server {

using graph::Json;

/// Where a prompt stands, with the names that /api/jobs has for it.
enum class JobState { Pending, InProgress, Completed, Failed, Cancelled };
const char* name_of(JobState state);
std::optional<JobState> job_state(const std::string& name);

/// A prompt that was accepted.
struct Job {
  std::string id;
  /// Its place in the queue, smallest first: an integer, or a fraction where the client gave one.
  Json number = 0;
  Json prompt = Json::object();      // validated, constants converted
  Json extra_data = Json::object();  // with "client_id" and "create_time", without secrets
  std::vector<std::string> outputs;  // that are to be executed
  int begun = 0;                     // how often it was begun
  /// Read from the database after a restart: it was validated by another process.
  bool restored = false;

  /// Whom its messages go to; "" where nobody asked for them.
  std::string client() const;
  std::int64_t created_ms() const;
  /// "" where the page gave none.
  std::string workflow_id() const;
  const Json* extra_pnginfo() const;
};

/// How a job ended.
struct Outcome {
  JobState state = JobState::Completed;
  Json outputs = Json::object();
  Json meta = Json::object();
  Json messages = Json::array();  // [[type, data], ...]

  /// "timestamp" of the first message of these types.
  std::optional<std::int64_t> started_ms() const;
  std::optional<std::int64_t> ended_ms() const;
};

/// A job that could not be run at all, with the reason as the message of its error.
Outcome failure(const Job& job, const std::string& type, const std::string& sentence);

std::int64_t now_ms();

/// [number, id, prompt, extra_data, [outputs]]: as /queue and /history have it.
Json queue_item(const Job& job);
/// {"status_str", "completed", "messages"} as /history has it.
Json history_status(const Outcome& outcome);
/// A job of /api/jobs: waiting or running, and ended (there with its outputs counted and one chosen
/// to be shown).
Json job_entry(const Job& job, JobState state);
Json job_entry(const Job& job, const Outcome& outcome);
/// Outputs for the details of a job: names of 3D files become files, nulls go.
Json normal_outputs(const Json& outputs);

}  // namespace distorch::server
