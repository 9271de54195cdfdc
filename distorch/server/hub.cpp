#include "distorch/server/hub.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <system_error>
#include <thread>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/base/units.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/address.h"
#include "distorch/server/http_get.h"

namespace distorch::server {

namespace fs = std::filesystem;
using graph::Json;

namespace {

constexpr int kMostRedirections = 8;
constexpr int kAttempts = 4;  // of a file, where the connection breaks in the middle
constexpr std::chrono::milliseconds kPause(500);
constexpr std::size_t kLargestList = std::size_t{64} << 20;  // bytes

std::string path_in_url(const std::string& path) {
  std::string result;
  for (std::size_t first = 0; first <= path.size();) {
    const auto slash = std::min(path.find('/', first), path.size());
    if (first > 0) result += '/';
    result += percent_encoded(path.substr(first, slash - first));
    first = slash + 1;
  }
  return result;
}

/// Names that a mirror may give files here: below the folder, and nothing hidden.
bool stays_inside(const std::string& path) {
  const fs::path relative(path);
  if (path.empty() || relative.is_absolute() || path.find('\\') != std::string::npos ||
      path.find('\0') != std::string::npos)
    return false;
  return std::none_of(relative.begin(), relative.end(), [](const fs::path& part) {
    return part.empty() || part.native().starts_with('.');
  });
}

bool is_repository(const std::string& name) {
  const auto slash = name.find('/');
  auto plain = [](const std::string& part) {
    return !part.empty() && !part.starts_with('.') &&
           part.find_first_not_of(
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
               "-_.") == std::string::npos;
  };
  return slash != std::string::npos && plain(name.substr(0, slash)) &&
         plain(name.substr(slash + 1));
}

/// An open file that nobody else writes.
class Part {
 public:
  explicit Part(fs::path path) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail("cannot be written");
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      ::close(descriptor_);
      throw Error(ErrorKind::Usage, path_.string(),
                  "is being downloaded by another process: wait for it");
    }
  }
  ~Part() { ::close(descriptor_); }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  std::uint64_t size() const {
    struct stat info {};
    if (::fstat(descriptor_, &info) != 0) fail("cannot be read");
    return static_cast<std::uint64_t>(info.st_size);
  }
  void cut(std::uint64_t size) {
    if (::ftruncate(descriptor_, static_cast<off_t>(size)) != 0) fail("cannot be written");
  }
  /// At the end.
  void append(std::string_view bytes) {
    ::lseek(descriptor_, 0, SEEK_END);
    while (!bytes.empty()) {
      const auto count = ::write(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("cannot be written");
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }
  /// Digest of a text and the whole content, in hexadecimal digits.
  std::string digest(const EVP_MD* kind, const std::string& before) const {
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                    EVP_MD_CTX_free);
    EVP_DigestInit_ex(context.get(), kind, nullptr);
    EVP_DigestUpdate(context.get(), before.data(), before.size());
    std::vector<char> bytes(std::size_t{1} << 20);
    ::lseek(descriptor_, 0, SEEK_SET);
    for (;;) {
      const auto count = ::read(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("cannot be read");
      if (count == 0) break;
      EVP_DigestUpdate(context.get(), bytes.data(), static_cast<std::size_t>(count));
      throw_if_interrupted();
    }
    std::array<unsigned char, EVP_MAX_MD_SIZE> sum{};
    unsigned int size = 0;
    EVP_DigestFinal_ex(context.get(), sum.data(), &size);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", sum[i]);
    return text;
  }
  void flush() const {
    if (::fsync(descriptor_) != 0) fail("cannot be written");
  }
  void remove() const { ::unlink(path_.c_str()); }

 private:
  /// A full disk gets its room back.
  [[noreturn]] void fail(const char* what) const {
    const int code = errno;
    if (code == ENOSPC || code == EDQUOT) {
      remove();
      throw Error(ErrorKind::OutOfMemory, path_.string(),
                  "does not fit on the disk, which is full: what came of it is removed");
    }
    throw Error(ErrorKind::Usage, path_.string(), fmt::format("{}: {}", what, std::strerror(code)));
  }

  fs::path path_;
  int descriptor_ = -1;
};

/// A request that follows redirections; the token goes to the mirror alone.
HttpAnswer ask(HttpGet get, const std::string& mirror, const std::string& token) {
  const auto begins = get.begins;
  for (int i = 0; i < kMostRedirections; ++i) {
    get.headers.erase("Authorization");
    if (!token.empty() && origin_of(get.url) == origin_of(mirror))
      get.headers["Authorization"] = "Bearer " + token;
    std::string location;
    get.begins = [&](const HttpAnswer& answer) {
      if (answer.status >= 300 && answer.status < 400 && answer.status != 304)
        location = answer.header("location");
      return location.empty() && begins(answer);
    };
    auto answer = http_get(get);
    if (location.empty()) return answer;
    get.url = redirected(get.url, location);
  }
  throw Error(ErrorKind::Format, get.url, "leads from one address to the next without an end");
}

/// What an answer means that is no success.
[[noreturn]] void refuse(const HttpAnswer& answer, const std::string& page,
                         const std::string& where) {
  const auto said = answer.header("x-error-message");
  const auto more = said.empty() ? "" : " (\"" + said + "\")";
  if (answer.status == 401 || answer.status == 403)
    throw Error(ErrorKind::Usage, page,
                fmt::format("is not given to everybody ({}){}: it is gated or private, or does not "
                            "exist. Open that page, accept its terms, and give an access token of "
                            "your account with --download-token; or put the files into the folder "
                            "by hand",
                            answer.status, more));
  if (answer.status == 404)
    throw Error(ErrorKind::MissingFile, where,
                fmt::format("is not there (404){}: the mirror has no such model or file", more));
  throw Error(ErrorKind::Format, where,
              fmt::format("answers {}{}: try again later, or another --download-mirror",
                          answer.status, more));
}

std::uint64_t count_in(const Json& entry, const char* key) {
  auto found = entry.find(key);
  return found != entry.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}
std::string text_in(const Json& entry, const char* key) {
  auto found = entry.find(key);
  return found != entry.end() && found->is_string() ? found->get<std::string>() : "";
}

std::vector<Hub::File> read_list(const std::string& text, const std::string& where) {
  const auto list = graph::parse_json(text, where);
  if (!list.is_array())
    throw Error(ErrorKind::Format, where, "is no list of files as the hub gives it");
  std::vector<Hub::File> files;
  for (const auto& entry : list) {
    if (!entry.is_object() || text_in(entry, "type") != "file") continue;
    Hub::File file{text_in(entry, "path"), count_in(entry, "size"), "", text_in(entry, "oid")};
    // A large file is named by what stands for it.
    if (auto large = entry.find("lfs"); large != entry.end() && large->is_object()) {
      file.git_blob = "";
      file.sha256 = text_in(*large, "oid");
      file.bytes = count_in(*large, "size");
    }
    files.push_back(std::move(file));
  }
  return files;
}

void check_sum(Part& part, const Hub::File& file, const fs::path& path) {
  std::string got, wanted;
  if (file.sha256.size() == 64) {
    wanted = file.sha256;
    got = part.digest(EVP_sha256(), "");
  } else if (file.git_blob.size() == 40) {
    wanted = file.git_blob;
    got = part.digest(EVP_sha1(), fmt::format("blob {}", file.bytes) + '\0');
  }
  if (got == wanted) return;
  part.remove();
  throw Error(ErrorKind::Format, path.string(),
              fmt::format("came with the checksum {}, and the mirror says {}: it is removed, try "
                          "again",
                          got, wanted));
}

/// The files of one model on their way into a folder.
class Fetch {
 public:
  Fetch(const std::string& mirror, const std::string& token, const std::string& repository,
        fs::path folder, const Hub::Progress& progress)
      : mirror_(mirror),
        token_(token),
        repository_(repository),
        folder_(std::move(folder)),
        progress_(progress) {}

  void run(const std::vector<Hub::File>& files) {
    for (const auto& file : files) total_ += file.bytes;
    check_room(files);
    for (const auto& file : files) bring(file);
  }

 private:
  fs::path place(const Hub::File& file) const { return folder_ / file.path; }
  static fs::path part_of(const fs::path& path) { return path.string() + ".part"; }

  void check_room(const std::vector<Hub::File>& files) const {
    std::uint64_t there = 0;
    std::error_code code;
    for (const auto& file : files)
      for (const auto& path : {place(file), part_of(place(file))})
        if (const auto size = fs::file_size(path, code); !code) there += size;
    const auto room = fs::space(folder_, code);
    if (code || there >= total_ || room.available >= total_ - there) return;
    throw Error(ErrorKind::OutOfMemory, folder_.string(),
                fmt::format("has no room for {}: {} are to come, and {} are free on its disk",
                            repository_, human_bytes(static_cast<double>(total_ - there)),
                            human_bytes(static_cast<double>(room.available))));
  }

  void bring(const Hub::File& file) {
    const auto path = place(file);
    std::error_code code;
    // Files get their names when they are complete.
    if (fs::is_regular_file(path, code) && fs::file_size(path, code) == file.bytes) {
      done_ += file.bytes;
      return;
    }
    fs::create_directories(path.parent_path());
    Part part(part_of(path));
    for (int attempt = 1; part.size() != file.bytes || file.bytes == 0; ++attempt) {
      try {
        bring_rest(file, part);
        break;
      } catch (const Error& problem) {
        // What is broken is gone on with; everything else will not be better the next time.
        if (problem.kind() != ErrorKind::Format || attempt >= kAttempts || !broken_) throw;
        log::warn("{}; going on with it", problem.what());
        std::this_thread::sleep_for(kPause * attempt);
        throw_if_interrupted();
      }
    }
    if (part.size() != file.bytes) {
      part.remove();
      throw Error(ErrorKind::Format, path.string(),
                  fmt::format("has {} bytes, and the mirror says {}: it is removed, try again",
                              part.size(), file.bytes));
    }
    check_sum(part, file, path);
    part.flush();
    fs::rename(part_of(path), path);
    done_ += file.bytes;
  }

  /// From where the part ends.
  void bring_rest(const Hub::File& file, Part& part) {
    auto here = part.size();
    if (here > file.bytes) part.cut(here = 0);
    broken_ = true;
    HttpGet get;
    get.url = fmt::format("{}/{}/resolve/main/{}", mirror_, repository_, path_in_url(file.path));
    if (here > 0) get.headers["Range"] = fmt::format("bytes={}-", here);
    get.begins = [&](const HttpAnswer& answer) {
      // Whoever knows no ranges begins at the beginning.
      if (answer.status == 200 && here > 0) part.cut(here = 0);
      if (answer.status == 200 || (answer.status == 206 && here > 0)) return true;
      broken_ = false;
      refuse(answer, mirror_ + "/" + repository_, get.url);
    };
    get.piece = [&](std::string_view bytes) {
      if (here + bytes.size() > file.bytes) {
        broken_ = false;
        part.remove();
        throw Error(ErrorKind::Format, get.url,
                    fmt::format("gives more than the {} bytes that the mirror says", file.bytes));
      }
      part.append(bytes);
      here += bytes.size();
      progress_(static_cast<double>(done_ + here), static_cast<double>(total_));
    };
    ask(get, mirror_, token_);
  }

  const std::string &mirror_, &token_, &repository_;
  fs::path folder_;
  const Hub::Progress& progress_;
  std::uint64_t total_ = 0, done_ = 0;
  bool broken_ = true;  // whether an error was the connection's
};

}  // namespace

Hub::Hub(std::string mirror, std::string token)
    : mirror_(std::move(mirror)), token_(std::move(token)) {
  while (mirror_.ends_with('/')) mirror_.pop_back();
  origin_of(mirror_);  // complains now, not in the middle of a run
}

std::vector<Hub::File> Hub::files(const std::string& repository) const {
  if (!is_repository(repository))
    throw Error(ErrorKind::Usage, repository, "is no name of a published model, as 'author/name'");
  std::vector<File> all;
  auto url = fmt::format("{}/api/models/{}/tree/main?recursive=true", mirror_, repository);
  std::set<std::string> seen;
  while (!url.empty()) {
    if (!seen.insert(url).second)
      throw Error(ErrorKind::Format, url, "is a list that leads to itself");
    std::string text;
    HttpGet get{.url = url, .headers = {}, .begins = {}, .piece = {}};
    get.begins = [&](const HttpAnswer& answer) {
      if (answer.status != 200) refuse(answer, mirror_ + "/" + repository, url);
      return true;
    };
    get.piece = [&](std::string_view bytes) {
      text += bytes;
      if (text.size() > kLargestList)
        throw Error(ErrorKind::Format, url, "is too long for a list of files");
    };
    const auto answer = ask(get, mirror_, token_);
    for (auto& file : read_list(text, url)) all.push_back(std::move(file));
    // Longer lists come in several parts.
    const auto next = answer.header("link");
    const auto open = next.find('<'), close = next.find('>');
    const bool more = open != std::string::npos && close != std::string::npos && open < close &&
                      next.find("rel=\"next\"", close) != std::string::npos;
    url = more ? redirected(url, next.substr(open + 1, close - open - 1)) : "";
  }
  return all;
}

void Hub::fetch(const std::string& repository, const Wanted& wanted, const fs::path& folder,
                const Progress& progress) const {
  const auto all = files(repository);
  std::vector<std::string> names;
  for (const auto& file : all)
    if (stays_inside(file.path)) names.push_back(file.path);
  const auto chosen = wanted(names);
  std::vector<File> files;
  for (const auto& name : chosen)
    for (const auto& file : all)
      if (file.path == name) files.push_back(file);
  if (files.empty())
    throw Error(ErrorKind::MissingFile, mirror_ + "/" + repository,
                "holds no files that such a model needs");
  const auto incomplete = folder.parent_path() / ("." + folder.filename().string() + ".incomplete");
  std::error_code code;
  fs::create_directories(incomplete, code);
  if (code) throw Error(ErrorKind::Usage, incomplete.string(), "cannot be made: " + code.message());
  double bytes = 0;
  for (const auto& file : files) bytes += static_cast<double>(file.bytes);
  log::info("downloading {} ({} files, {}) from {} into {}", repository, files.size(),
            human_bytes(bytes), mirror_, folder.string());
  Fetch(mirror_, token_, repository, incomplete, progress).run(files);
  fs::rename(incomplete, folder, code);
  if (code)
    throw Error(ErrorKind::Usage, folder.string(),
                fmt::format("cannot be made of {}: {}", incomplete.string(), code.message()));
}

}  // namespace distorch::server
