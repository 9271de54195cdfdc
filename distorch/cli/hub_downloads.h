#pragma once
#include "distorch/nodes/published_model.h"
#include "distorch/server/hub.h"

namespace distorch::cli {

/// Downloads of nodes, from a hub.
class HubDownloads final : public nodes::Downloads {
 public:
  explicit HubDownloads(server::Hub hub) : hub_(std::move(hub)) {}
  void fetch(const std::string& model, const Wanted& wanted, const std::filesystem::path& folder,
             const Progress& progress) override {
    hub_.fetch(model, wanted, folder, progress);
  }

 private:
  server::Hub hub_;
};

}  // namespace distorch::cli
