#include "distorch/graph/cache.h"

#include <algorithm>
#include <set>

namespace distorch::graph {

void KeyBuilder::add_byte(unsigned char byte) {
  // Two different multiply-and-mix hashes over the same bytes.
  high_ = (high_ ^ byte) * 0x100000001B3ull;
  low_ = (low_ + byte) * 0x9E3779B97F4A7C15ull;
  low_ ^= low_ >> 29;
}

void KeyBuilder::add(std::string_view part) {
  std::uint64_t size = part.size();
  for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<unsigned char>(size >> shift));
  for (char c : part) add_byte(static_cast<unsigned char>(c));
}

void KeyBuilder::add(const CacheKey& key) {
  for (std::uint64_t half : {key.high, key.low})
    for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<unsigned char>(half >> shift));
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

}  // namespace distorch::graph
