#pragma once
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "distorch/server/database.h"
#include "distorch/server/job.h"

namespace distorch::server {

struct StoreOptions {
  std::filesystem::path file;
  /// So many ended prompts are kept, the oldest go first.
  std::int64_t history_limit = 10000;
  /// A prompt that was running when the process died is begun at most so often in all; then it
  /// counts as failed.
  int most_begun = 3;
};

/// Which jobs a list is about.
struct JobQuery {
  std::vector<JobState> states;  // empty: all
  std::string workflow_id;       // "": any
  bool by_duration = false;      // else by the time when they were created
  bool ascending = false;
  std::int64_t offset = 0;
  std::optional<std::int64_t> limit;
};

/// Part of a list of jobs, as JSON text.
struct JobPage {
  std::string jobs;  // an array
  std::int64_t count = 0, total = 0;
};

/// Keeps accepted prompts and how they ended, in an SQLite file that one process uses at a time.
/// What a function of this class wrote is on disk when the function returns: it survives kill -9.
/// Where the file cannot be used (damaged, in use, not writable, disk full, of a newer distorch; now
/// or later) the store says so in problem() and in the log, leaves the file as it is and goes on in memory: the
/// same prompts and history, gone with the process. Safe to call from any thread.
class Store {
 public:
  explicit Store(StoreOptions options);

  /// "" while the file is used; else why it is not.
  std::string problem() const;
  /// The prompts that wait, also those that were running when the last process ended; they count
  /// as waiting again. Those that were begun too often, or cannot be read, have been marked failed.
  /// For the start.
  std::vector<Job> restore();

  /// A waiting prompt. One of the same id that has ended is forgotten.
  void accept(const Job& job);
  /// It runs from now on; counts in `job.begun`.
  void begin(Job& job);
  /// It waits again as if it had not been begun: the server stops.
  void put_back(Job& job);
  /// It waits no longer and leaves nothing behind.
  void remove(const std::vector<std::string>& ids);
  void finish(const Job& job, const Outcome& outcome);

  /// {id: entry} as JSON text, oldest first. Without `offset` the newest `most` ones, else from
  /// there.
  std::string history(std::optional<std::int64_t> most, std::optional<std::int64_t> offset) const;
  /// {id: entry} or {}.
  std::string history(const std::string& id) const;
  bool has_ended(const std::string& id) const;
  void forget(const std::vector<std::string>& ids);
  void forget_all();

  JobPage list(const JobQuery& query) const;
  /// An ended job with its details; null where there is none.
  Json details(const std::string& id) const;

 private:
  void set_up() const;
  void go_on_in_memory(const std::string& reason) const;
  void write(const std::function<void()>& work);
  void read(const std::function<void()>& work) const;
  struct Unfinished {
    Job job;
    std::string fault;  // "" where it can be read
  };
  std::vector<Unfinished> unfinished() const;
  void put(const Job& job, JobState state);
  void put_end(const Job& job, const Outcome& outcome);
  void keep_limit();
  std::int64_t next_end();

  StoreOptions options_;
  mutable std::mutex mutex_;
  mutable Database database_;
  mutable std::string problem_;
};

}  // namespace distorch::server
