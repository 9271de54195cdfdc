#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/graph/call.h"

namespace distorch::graph {

/// The calls of background nodes (NodeType::background) of one run, on threads of their own that
/// work for the calling thread's run. What they report and that they ended is learnt by asking.
class BackgroundCalls {
 public:
  /// `context`: how nodes are to be run (Context::enter); may be null.
  explicit BackgroundCalls(const Context* context);
  /// Calls that are not done stop at the next progress they report; waits for them.
  ~BackgroundCalls();
  BackgroundCalls(const BackgroundCalls&) = delete;
  BackgroundCalls& operator=(const BackgroundCalls&) = delete;

  /// A call for each element of the node's longest list; null where it is blocked.
  using Calls = std::vector<std::unique_ptr<Call>>;
  /// Where the calls of node `id` report to; to be put into their inputs.
  CallListener* listener(const std::string& id);
  void start(const std::string& id, Calls calls);
  bool running() const { return !open_.empty(); }
  bool has(const std::string& id) const { return open_.count(id) != 0; }

  /// Something that happened since the last time: progress, or that the node's calls have ended.
  struct News {
    std::string node;
    std::optional<std::pair<double, double>> progress;  // value, max
  };
  /// The next one; waits a moment for it where `wait`.
  std::optional<News> next(bool wait);
  /// The calls of a node that have ended. Throws what the first of them threw.
  Calls take(const std::string& id);

 private:
  class Line;
  struct Node {
    Calls calls;
    std::size_t left = 0;
    std::exception_ptr failure;
  };
  struct Work {
    Node* node;
    Call* call;
    std::string id;
  };
  void serve();
  void perform(const Work& work, std::unique_lock<std::mutex>& lock);
  void tell(News news);

  const Context* context_;
  std::shared_ptr<RunToken> token_;
  std::mutex mutex_;
  std::condition_variable wanted_, told_;
  std::map<std::string, std::unique_ptr<Node>> open_;  // the run's thread alone changes the map
  std::map<std::string, std::unique_ptr<Line>> lines_;
  std::deque<Work> work_;
  std::deque<News> news_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace distorch::graph
