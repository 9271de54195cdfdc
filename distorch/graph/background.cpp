#include "distorch/graph/background.h"

#include <algorithm>
#include <chrono>

#include "distorch/graph/catalog.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kMostThreads = 64;
constexpr std::chrono::milliseconds kMoment(20);

}  // namespace

/// What a call reports to.
class BackgroundCalls::Line final : public CallListener {
 public:
  Line(BackgroundCalls& calls, std::string id) : calls_(calls), id_(std::move(id)) {}
  void on_progress(double value, double max) override { calls_.tell({id_, std::pair(value, max)}); }

 private:
  BackgroundCalls& calls_;
  std::string id_;
};

BackgroundCalls::BackgroundCalls(const Context* context)
    : context_(context), token_(current_run()) {}

BackgroundCalls::~BackgroundCalls() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    work_.clear();
  }
  wanted_.notify_all();
  for (auto& thread : threads_) thread.join();
}

CallListener* BackgroundCalls::listener(const std::string& id) {
  auto& line = lines_[id];
  if (!line) line = std::make_unique<Line>(*this, id);
  return line.get();
}

void BackgroundCalls::start(const std::string& id, Calls calls) {
  auto owned = std::make_unique<Node>();
  Node* node = owned.get();
  node->calls = std::move(calls);
  open_[id] = std::move(owned);
  std::lock_guard lock(mutex_);
  for (auto& call : node->calls)
    if (call) {
      ++node->left;
      work_.push_back({node, call.get(), id});
    }
  if (node->left == 0) news_.push_back({id, {}});
  while (threads_.size() < kMostThreads && idle_ < work_.size()) {
    threads_.emplace_back([this] { serve(); });
    ++idle_;
  }
  wanted_.notify_all();
}

std::optional<BackgroundCalls::News> BackgroundCalls::next(bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) told_.wait_for(lock, kMoment, [&] { return !news_.empty(); });
  if (news_.empty()) return {};
  News first = std::move(news_.front());
  news_.pop_front();
  return first;
}

BackgroundCalls::Calls BackgroundCalls::take(const std::string& id) {
  auto node = std::move(open_.at(id));
  open_.erase(id);
  if (node->failure) std::rethrow_exception(node->failure);
  return std::move(node->calls);
}

void BackgroundCalls::serve() {
  RunScope scope(token_);
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_.wait(lock, [&] { return stopping_ || !work_.empty(); });
    if (stopping_) return;
    Work work = std::move(work_.front());
    work_.pop_front();
    --idle_;
    perform(work, lock);
    ++idle_;
  }
}

void BackgroundCalls::perform(const Work& work, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  std::exception_ptr failure;
  try {
    throw_if_interrupted();
    auto run = [&] { work.call->node_type().run(*work.call); };
    if (context_)
      context_->enter(run);
    else
      run();
    if (!work.call->expansion().is_null())
      throw Error(ErrorKind::Internal, work.call->place(), "expands, which its type must not");
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  if (failure && !work.node->failure) work.node->failure = failure;
  if (--work.node->left == 0) {
    news_.push_back({work.id, {}});
    told_.notify_all();
  }
}

void BackgroundCalls::tell(News news) {
  std::lock_guard lock(mutex_);
  if (stopping_) throw Error(ErrorKind::Interrupted, "", "the run is over");
  news_.push_back(std::move(news));
  told_.notify_all();
}

}  // namespace distorch::graph
