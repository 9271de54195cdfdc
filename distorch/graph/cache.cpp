#include "distorch/graph/cache.h"

#include <algorithm>

namespace distorch::graph {

namespace {

void append(std::string& bytes, std::uint64_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

}  // namespace

void KeyBuilder::add(std::string_view part) {
  append(bytes_, part.size());
  bytes_ += part;
}

void KeyBuilder::add(const CacheKey& key) {
  append(bytes_, key.high);
  append(bytes_, key.low);
}

std::shared_ptr<const NodeResult> ResultCache::find(const CacheKey& key) {
  auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  found->second.used = ++clock_;
  return found->second.result;
}

void ResultCache::store(const CacheKey& key, const std::string& owner,
                        std::shared_ptr<const NodeResult> result) {
  if (mode_ == CacheMode::None) return;
  entries_[key] = {std::move(result), owner, ++clock_};
}

void ResultCache::begin_prompt(const std::vector<CacheKey>& keys,
                               const std::vector<std::string>& owners) {
  if (mode_ == CacheMode::None) {
    entries_.clear();
    return;
  }
  prompt_began_ = clock_;
  std::set<CacheKey> wanted(keys.begin(), keys.end());
  std::set<std::string> present(owners.begin(), owners.end());
  std::vector<std::pair<std::uint64_t, CacheKey>> unused;
  for (auto& [key, entry] : entries_) {
    bool held = wanted.count(key) || (!entry.owner.empty() && present.count(entry.owner));
    if (!held) unused.emplace_back(entry.used, key);
  }
  std::size_t kept = entries_.size() - unused.size();
  std::size_t spare = mode_ == CacheMode::Lru && lru_size_ > kept ? lru_size_ - kept : 0;
  std::sort(unused.begin(), unused.end());
  for (std::size_t i = 0; i + spare < unused.size(); ++i) entries_.erase(unused[i].second);
}

void ResultCache::end_prompt(const std::set<std::string>& owners) {
  std::erase_if(entries_, [&](const auto& item) {
    const Entry& entry = item.second;
    return entry.used <= prompt_began_ && owners.count(entry.owner);
  });
}

}  // namespace distorch::graph
