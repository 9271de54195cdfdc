#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "distorch/server/router.h"

namespace distorch::server {

/// What the set-up fetched (tools/setup.sh). A folder that is empty or not there is answered with
/// 404; the page itself with a text that says how to get it.
struct PageFolders {
  std::filesystem::path page;
  std::filesystem::path templates;
  std::filesystem::path docs;
};

/// ".deps/page", ".deps/templates" and ".deps/docs" of the checkout that the program lies in, else
/// of the current folder; $DISTORCH_PAGE in place of the first.
PageFolders find_page_folders();

/// The type of a file by its ending, as the page needs it; "application/octet-stream" for others.
std::string static_content_type(const std::string& name);

/// Files of one folder, sent to whoever asks. Names are confined to it: ".." and links that lead
/// out give 404. Texts are compressed for peers on other machines (on one machine that costs more
/// than it saves), once; the compressed forms are kept, the least used ones go first. Safe to call
/// from several threads at once.
class StaticFiles {
 public:
  struct Options {
    /// Of compressed forms, in bytes; larger files than `largest` are sent as they are.
    std::size_t cache_bytes = 64u << 20;
    std::size_t largest = 32u << 20;
    bool compress_loopback = false;
  };
  explicit StaticFiles(std::filesystem::path folder) : StaticFiles(std::move(folder), Options{}) {}
  StaticFiles(std::filesystem::path folder, Options options);

  /// `name` is relative, with "/". 404 where it is no file of the folder.
  Response answer(const Request& request, const std::string& name);
  bool has(const std::string& name) const;
  const std::filesystem::path& folder() const { return folder_; }
  /// Bytes of compressed forms that are kept.
  std::size_t cached_bytes() const;

 private:
  struct Packed {
    std::string name;
    std::string etag;
    std::shared_ptr<const std::string> bytes;
  };
  std::shared_ptr<const std::string> packed(const std::string& name,
                                            const std::filesystem::path& file,
                                            const std::string& etag);
  void keep(Packed entry);

  std::filesystem::path folder_;
  Options options_;
  mutable std::mutex mutex_;
  // The most recently used first.
  std::list<Packed> entries_;
  std::map<std::string, std::list<Packed>::iterator> by_name_;
  std::size_t bytes_ = 0;
};

/// The page with its templates and node docs; must outlive the router's use.
struct PageState {
  explicit PageState(PageFolders folders, StaticFiles::Options options = {})
      : page(std::move(folders.page), options),
        templates(std::move(folders.templates), options),
        docs(std::move(folders.docs), options) {}

  StaticFiles page;
  StaticFiles templates;
  StaticFiles docs;
  /// Whether nodes of this type can run here. Where it is set, the list of templates names only
  /// those whose nodes all can.
  std::function<bool(const std::string& type)> knows_node;

  std::once_flag listed;
  /// File name of a list ("index.json", "index.de.json") -> what is left of it.
  std::map<std::string, std::string> lists;
};

/// "/" and every file of the page, "/templates/...", "/docs/...", "/workflow_templates" (those that
/// add-ons bring: none).
void add_page_routes(Router& router, PageState& state);

}  // namespace distorch::server
