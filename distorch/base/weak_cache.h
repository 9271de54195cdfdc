#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace distorch {

/// Things by name for as long as somebody else holds them. Names of those that are gone are
/// forgotten when the next one comes. Not for several threads at once.
template <class Thing>
class WeakCache {
 public:
  /// Null where nobody holds it any more.
  std::shared_ptr<Thing> find(const std::string& name) const {
    auto found = things_.find(name);
    return found == things_.end() ? nullptr : found->second.lock();
  }
  void keep(const std::string& name, const std::shared_ptr<Thing>& thing) {
    std::erase_if(things_, [](const auto& entry) { return entry.second.expired(); });
    things_[name] = thing;
  }
  /// Of names that are remembered.
  std::size_t size() const { return things_.size(); }

 private:
  std::map<std::string, std::weak_ptr<Thing>> things_;
};

}  // namespace distorch
