#include "distorch/server/static_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "distorch/base/text.h"
#include "distorch/server/compression.h"
#include "distorch/server/template_lists.h"

namespace distorch::server {
namespace {

namespace fs = std::filesystem;

// Higher levels take much longer for a few parts in a hundred.
constexpr int kLevel = 6;
constexpr std::size_t kLeastToCompress = 1024;
constexpr const char* kForever = "public, max-age=31536000, immutable";
constexpr const char* kOneDay = "public, max-age=86400";
constexpr const char* kAskAgain = "no-cache";

constexpr std::array<std::pair<std::string_view, std::string_view>, 34> kTypes{{
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".mjs", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".json", "application/json; charset=utf-8"},
    {".map", "application/json; charset=utf-8"},
    {".webmanifest", "application/manifest+json"},
    {".md", "text/markdown; charset=utf-8"},
    {".txt", "text/plain; charset=utf-8"},
    {".xml", "application/xml"},
    {".svg", "image/svg+xml"},
    {".wasm", "application/wasm"},
    {".woff", "font/woff"},
    {".woff2", "font/woff2"},
    {".ttf", "font/ttf"},
    {".otf", "font/otf"},
    {".eot", "application/vnd.ms-fontobject"},
    {".png", "image/png"},
    {".jpg", "image/jpeg"},
    {".jpeg", "image/jpeg"},
    {".gif", "image/gif"},
    {".webp", "image/webp"},
    {".avif", "image/avif"},
    {".ico", "image/x-icon"},
    {".bmp", "image/bmp"},
    {".mp4", "video/mp4"},
    {".webm", "video/webm"},
    {".mp3", "audio/mpeg"},
    {".wav", "audio/wav"},
    {".ogg", "audio/ogg"},
    {".flac", "audio/flac"},
    {".glb", "model/gltf-binary"},
    {".gltf", "model/gltf+json"},
    {".pdf", "application/pdf"},
}};

std::string ending_of(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : lower(name.substr(dot));
}

// "a/b.js" and nothing that leaves the folder or hides in it.
bool is_plain_name(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string::npos ||
      name.find('\0') != std::string::npos)
    return false;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t slash = std::min(name.find('/', at), name.size());
    if (slash == at || name[at] == '.') return false;
    at = slash + 1;
  }
  return true;
}

bool is_below(const fs::path& file, const fs::path& folder) {
  auto [rest, other] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return rest == folder.end() && other != file.end();
}

// The builder of the page puts eight characters of a content's hash before the ending.
bool has_hash(const std::string& name) {
  constexpr std::size_t kHash = 8;
  const std::size_t dot = name.rfind('.');
  return dot != std::string::npos && dot > kHash && name[dot - kHash - 1] == '-' &&
         name.starts_with("assets/");
}

const char* caching_of(const std::string& name, const std::string& type) {
  if (has_hash(name)) return kForever;
  return type.starts_with("image/") || type.starts_with("font/") || type.starts_with("video/")
             ? kOneDay
             : kAskAgain;
}

std::string read_whole(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

bool is_loopback(const std::string& peer) { return peer.starts_with("127.") || peer == "::1"; }

Response not_there(const std::string& name) {
  return Response::json(Json{{"error", name + " is not there"}}, 404);
}

Response no_page() {
  Response page = Response::bytes(
      "<!doctype html><meta charset=\"utf-8\"><title>distorch</title>"
      "<body style=\"font-family:sans-serif;margin:4em;max-width:40em\"><h1>distorch</h1>"
      "<p>The server runs, and its API can be used. The web page is not installed: run "
      "<code>tools/setup.sh</code> in distorch's folder with a connection to PyPI (package "
      "<code>comfyui-frontend-package</code>), then load this address again.</p></body>\n",
      "text/html; charset=utf-8");
  page.status = 503;
  page.with("Cache-Control", "no-store");
  return page;
}

fs::path first_folder(const std::string& name) {
  std::error_code code;
  const fs::path program = fs::read_symlink("/proc/self/exe", code).parent_path();
  for (fs::path folder = program; folder.has_relative_path(); folder = folder.parent_path())
    if (fs::is_directory(folder / ".deps" / name, code)) return folder / ".deps" / name;
  return fs::path(".deps") / name;
}

Response template_file(const Request& request, PageState& state) {
  const std::string& name = request.parameters.at("path");
  if (state.knows_node) {
    std::call_once(state.listed, [&] {
      state.lists = template_lists(state.templates.folder(), state.knows_node);
    });
    if (auto found = state.lists.find(name); found != state.lists.end())
      return Response::bytes(found->second, static_content_type(name))
          .with("Cache-Control", kAskAgain);
  }
  return state.templates.answer(request, name);
}

}  // namespace

PageFolders find_page_folders() {
  PageFolders folders{first_folder("page"), first_folder("templates"), first_folder("docs")};
  if (const char* page = std::getenv("DISTORCH_PAGE")) folders.page = page;
  return folders;
}

std::string static_content_type(const std::string& name) {
  const std::string ending = ending_of(name);
  for (const auto& [known, type] : kTypes)
    if (known == ending) return std::string(type);
  return "application/octet-stream";
}

StaticFiles::StaticFiles(fs::path folder, Options options)
    : folder_(std::move(folder)), options_(options) {
  std::error_code code;
  const fs::path real = fs::canonical(folder_, code);
  if (!code) folder_ = real;
}

bool StaticFiles::has(const std::string& name) const {
  std::error_code code;
  return is_plain_name(name) && fs::is_regular_file(folder_ / name, code);
}

Response StaticFiles::answer(const Request& request, const std::string& name) {
  std::error_code code;
  if (!is_plain_name(name)) return not_there(name);
  const fs::path file = fs::canonical(folder_ / name, code);
  struct stat status {};
  if (code || !is_below(file, folder_) || ::stat(file.c_str(), &status) != 0 ||
      !S_ISREG(status.st_mode))
    return not_there(name);
  const std::string type = static_content_type(name);
  const auto size = static_cast<std::size_t>(status.st_size);
  const bool can_shrink = (options_.compress_loopback || !is_loopback(request.peer)) &&
                          is_compressible(type) && size >= kLeastToCompress &&
                          size <= options_.largest;
  Response response;
  if (can_shrink && accepts_gzip(request.header("accept-encoding"))) {
    const std::string etag =
        fmt::format("\"{:x}-{:x}-{:x}-gzip\"", status.st_mtim.tv_sec, status.st_mtim.tv_nsec, size);
    response = Response::bytes(*packed(name, file, etag), type)
                   .with("Content-Encoding", "gzip")
                   .with("ETag", etag);
  } else {
    response = Response::from_file(file, type);
  }
  if (can_shrink) response.with("Vary", "Accept-Encoding");
  return response.with("Cache-Control", caching_of(name, type));
}

std::shared_ptr<const std::string> StaticFiles::packed(const std::string& name,
                                                       const fs::path& file,
                                                       const std::string& etag) {
  {
    std::lock_guard lock(mutex_);
    auto found = by_name_.find(name);
    if (found != by_name_.end() && found->second->etag == etag) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->bytes;
    }
  }
  auto bytes = std::make_shared<const std::string>(gzip(read_whole(file), kLevel));
  keep({name, etag, bytes});
  return bytes;
}

void StaticFiles::keep(Packed entry) {
  std::lock_guard lock(mutex_);
  auto drop = [this](std::list<Packed>::iterator old) {
    bytes_ -= old->bytes->size();
    by_name_.erase(old->name);
    entries_.erase(old);
  };
  if (auto found = by_name_.find(entry.name); found != by_name_.end()) drop(found->second);
  bytes_ += entry.bytes->size();
  entries_.push_front(std::move(entry));
  by_name_[entries_.front().name] = entries_.begin();
  while (bytes_ > options_.cache_bytes) drop(std::prev(entries_.end()));
}

std::size_t StaticFiles::cached_bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

void add_page_routes(Router& router, PageState& state) {
  router.add(
      {.pattern = "/", .summary = "The web page.", .handler = [&state](const Request& request) {
         return state.page.has("index.html") ? state.page.answer(request, "index.html") : no_page();
       }});
  router.add({.pattern = "/{path...}",
              .mount = Mount::Plain,
              .summary = "A file of the web page.",
              .handler = [&state](const Request& request) {
                return state.page.answer(request, request.parameters.at("path"));
              }});
  router.add(
      {.pattern = "/templates/{path...}",
       .mount = Mount::Plain,
       .summary = "The list of workflow templates, a template or its picture.",
       .handler = [&state](const Request& request) { return template_file(request, state); }});
  router.add({.pattern = "/docs/{path...}",
              .mount = Mount::Plain,
              .summary = "The help text of a node.",
              .handler = [&state](const Request& request) {
                return state.docs.answer(request, request.parameters.at("path"));
              }});
  router.add({.pattern = "/workflow_templates",
              .summary = "Templates that add-ons bring: none.",
              .handler = [](const Request&) { return Response::json(Json::object()); }});
}

}  // namespace distorch::server
