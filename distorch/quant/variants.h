#pragma once
#include <map>
#include <memory>
#include <mutex>

namespace distorch::quant {

/// Encodings of one kind that differ by settings: each is made once and lives as long as the
/// process, so that two weights of the same settings have the same encoding.
template <class Kind, class Settings>
class Variants {
 public:
  const Kind& of(const Settings& settings) {
    std::lock_guard lock(mutex_);
    auto& one = made_[settings];
    if (!one) one = std::make_unique<const Kind>(settings);
    return *one;
  }

 private:
  std::mutex mutex_;
  std::map<Settings, std::unique_ptr<const Kind>> made_;
};

}  // namespace distorch::quant
