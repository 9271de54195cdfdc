#pragma once
#include <any>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "distorch/base/hash.h"
#include "distorch/graph/value.h"

namespace distorch::graph {

/// Names the result of a node by everything that decides it: its type, constants and change value,
/// and the keys of the nodes it is linked to. Ids of nodes are no part of it, so that the same
/// graph under other ids, or two equal branches, share results. A keyed hash: prompts come from
/// strangers, and no prompt may pass for another one.
using CacheKey = Digest;

/// Collects the parts of a key; each part is set apart from its neighbours.
class KeyBuilder {
 public:
  void add(std::string_view part);
  void add(const CacheKey& key);
  CacheKey key() const { return keyed_digest(bytes_); }

 private:
  std::string bytes_;
};

/// What a node left: for each output slot its values, and what it showed.
struct NodeResult {
  std::vector<std::vector<Value>> outputs;
  Json ui;    // null if it showed nothing
  Json meta;  // whose it is, for the history; null without ui
};

enum class CacheMode {
  Classic,  // results stay until a prompt comes that has no use for them
  Lru,      // besides, the last N used
  None      // nothing stays; within a run a result goes when its last reader has run
};

/// Results of nodes between runs.
class ResultCache {
 public:
  explicit ResultCache(CacheMode mode = CacheMode::Classic, std::size_t lru_size = 0)
      : mode_(mode), lru_size_(lru_size) {}

  CacheMode mode() const { return mode_; }
  /// nullptr when there is none.
  std::shared_ptr<const NodeResult> find(const CacheKey& key);
  /// `owner`: "" for a node of the prompt; for a node made by expansion "id type" of the visible
  /// node, with which its result stays.
  void store(const CacheKey& key, const std::string& owner,
             std::shared_ptr<const NodeResult> result);
  /// A new prompt is set up: drops what neither its keys nor its owners hold (and, with Lru, is
  /// old).
  void begin_prompt(const std::vector<CacheKey>& keys, const std::vector<std::string>& owners);
  /// The prompt has run whole: of these owners, which expanded in it, goes what it had no use for.
  void end_prompt(const std::set<std::string>& owners);
  void clear() { entries_.clear(); }
  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::shared_ptr<const NodeResult> result;
    std::string owner;
    std::uint64_t used = 0;
  };
  CacheMode mode_;
  std::size_t lru_size_;
  std::map<CacheKey, Entry> entries_;
  std::uint64_t clock_ = 0, prompt_began_ = 0;
};

}  // namespace distorch::graph
