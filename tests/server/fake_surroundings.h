#pragma once
#include <algorithm>
#include <map>

#include "distorch/server/surroundings.h"

namespace distorch::test {

/// Model places that a test fills: folders by type, searched without going deeper.
class FakeModels : public server::ModelPlaces {
 public:
  std::map<std::string, std::vector<std::filesystem::path>> places;

  std::vector<std::string> types() const override {
    std::vector<std::string> names;
    for (const auto& [name, folders] : places) names.push_back(name);
    return names;
  }
  std::vector<std::filesystem::path> folders(const std::string& type) const override {
    auto at = places.find(type);
    return at == places.end() ? std::vector<std::filesystem::path>{} : at->second;
  }
  std::vector<std::string> extensions(const std::string& type) const override {
    return {".pt", ".safetensors"};
  }
  std::vector<std::string> files(const std::string& type) const override {
    std::vector<std::string> names;
    for (const auto& folder : folders(type))
      if (std::filesystem::is_directory(folder))
        for (const auto& entry : std::filesystem::directory_iterator(folder))
          if (entry.is_regular_file()) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  std::optional<std::filesystem::path> find(const std::string& type,
                                            const std::string& name) const override {
    for (const auto& folder : folders(type))
      if (std::filesystem::is_regular_file(folder / name)) return folder / name;
    return {};
  }
};

}  // namespace distorch::test
