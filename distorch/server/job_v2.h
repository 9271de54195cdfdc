#pragma once
#include <atomic>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/server/assets.h"
#include "distorch/server/job_feed.h"
#include "distorch/server/prompts.h"

namespace distorch::server {

/// One output of a job: a file, or a text.
struct JobOutput {
  std::string node, kind;  // "images", "text", ... as the node gave it
  std::size_t index = 0;   // among those of the kind
  Json item;               // {"filename", "subfolder", "type"}, or a text
};

/// Names an output for ever: whoever holds the id can name nothing but outputs that the history has.
std::string output_id(const std::string& job, const JobOutput& output);
struct OutputKey {
  std::string job, node, kind;
  std::size_t index = 0;
};
/// Nothing for a text that is no such id.
std::optional<OutputKey> output_key(const std::string& id);

/// The outputs of a job in their order; what is neither file nor text is left out.
std::vector<JobOutput> outputs_in(const Json& outputs);

/// What /api/v2 tells about jobs, from the queue, the feed and the store. Safe to call from any
/// thread.
class JobsV2 {
 public:
  /// What is handed over must outlive this object. `encrypted`: links begin with https.
  JobsV2(Prompts& prompts, JobFeed& feed, const FileFolders& folders, bool encrypted = false)
      : prompts_(prompts), feed_(feed), folders_(folders), encrypted_(encrypted) {}

  /// A job as the interface has it; null where there is none. `base` as base_of() gives it.
  Json job(const std::string& id, const std::string& base);
  /// Stops or takes out; the job is known as cancelled from then on. False where there is none.
  bool cancel(const std::string& id);
  /// The graph that a job runs, or ran; null where there is none.
  Json workflow(const std::string& id);
  std::optional<JobOutput> output(const OutputKey& key);
  /// An output as an asset has it.
  Json output_json(const std::string& job, const JobOutput& output, const std::string& base) const;
  /// Its file; nothing for a text, or where it is gone.
  std::optional<std::filesystem::path> file_of(const JobOutput& output) const;

  std::string base(const Request& request) const;
  bool encrypted() const { return encrypted_; }
  Prompts& prompts() { return prompts_; }
  JobFeed& feed() { return feed_; }

 private:
  Json outputs_json(const std::string& job, const Json& outputs, const std::string& base) const;
  Json waiting(const Job& job, std::size_t position, const std::string& base) const;
  Json running(const Job& job, const std::string& base);
  Json ended(const Json& details, const std::string& base) const;
  bool is_cancelling(const std::string& id);

  Prompts& prompts_;
  JobFeed& feed_;
  const FileFolders& folders_;
  const bool encrypted_;
  std::mutex mutex_;
  std::set<std::string> cancelling_;
};

/// Where a running job stands: {"value" 0..1, "nodes_done", "nodes_total", ...}.
Json progress_of(const Job& job, const JobFeed::Live& live);

/// Whether the status is one that does not change any more.
bool is_final(const std::string& status);

}  // namespace distorch::server
