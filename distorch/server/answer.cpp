#include "distorch/server/answer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>

#include "distorch/base/text.h"
#include "distorch/server/compression.h"

namespace distorch::server {
namespace {

// Smaller bodies gain nothing.
constexpr std::size_t kLeastToCompress = 1024;

struct Reason {
  int status;
  const char* words;
};

constexpr Reason kReasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {303, "See Other"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {507, "Insufficient Storage"},
};

const char* reason_of(int status) {
  for (const Reason& reason : kReasons)
    if (reason.status == status) return reason.words;
  return "Other";
}

std::string http_date(std::time_t time) {
  std::tm parts{};
  gmtime_r(&time, &parts);
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[parts.tm_wday], parts.tm_mday,
                     kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
                     parts.tm_sec);
}

const std::string* find_header(const Response& response, std::string_view name) {
  for (const auto& [key, value] : response.headers)
    if (lower(key) == name) return &value;
  return nullptr;
}

bool has_header(const Response& response, std::string_view name) {
  return find_header(response, name) != nullptr;
}

// Whether a list like `"a", W/"b"` or "*" names this validator.
bool names_etag(std::string_view list, std::string_view etag) {
  auto strong = [](std::string_view tag) {
    if (tag.starts_with("W/")) tag.remove_prefix(2);
    return tag;
  };
  while (!list.empty()) {
    std::string_view piece = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), piece.size() + 1));
    while (!piece.empty() && piece.front() == ' ') piece.remove_prefix(1);
    while (!piece.empty() && piece.back() == ' ') piece.remove_suffix(1);
    if (piece == "*" || strong(piece) == strong(etag)) return true;
  }
  return false;
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || status != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

struct Range {
  enum class Kind { Whole, Part, Impossible } kind = Kind::Whole;
  std::uint64_t first = 0;
  std::uint64_t length = 0;
};

// "bytes=a-b", "bytes=a-", "bytes=-n" of `size` bytes; what is not understood asks for the whole.
Range parse_range(std::string_view header, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  if (!header.starts_with(kUnit)) return {};
  header.remove_prefix(kUnit.size());
  const std::size_t dash = header.find('-');
  if (dash == std::string_view::npos || header.find(',') != std::string_view::npos) return {};
  const auto from = number(header.substr(0, dash));
  const auto to = number(header.substr(dash + 1));
  if (!from && !to) return {};
  if (!from) {
    const std::uint64_t length = std::min(*to, size);
    if (length == 0) return {.kind = Range::Kind::Impossible};
    return {Range::Kind::Part, size - length, length};
  }
  if (dash + 1 < header.size() && (!to || *to < *from)) return {};
  if (*from >= size) return {.kind = Range::Kind::Impossible};
  const std::uint64_t last = to ? std::min(*to, size - 1) : size - 1;
  return {Range::Kind::Part, *from, last - *from + 1};
}

bool is_read(const Request& request) {
  return request.method == Method::Get || request.method == Method::Head;
}

bool is_unchanged(const Request& request, const Response& response) {
  const std::string* etag = find_header(response, "etag");
  return etag && is_read(request) && response.status == 200 &&
         names_etag(request.header("if-none-match"), *etag);
}

void erase_header(Response& response, std::string_view name) {
  std::erase_if(response.headers, [&](const auto& entry) { return lower(entry.first) == name; });
}

std::string without_breaks(const std::string& text) {
  std::string result;
  for (char c : text)
    if (c != '\r' && c != '\n' && c != '\0') result += c;
  return result;
}

void write_head(Answer& answer, const Response& response, std::uint64_t content_length) {
  std::string& head = answer.head;
  head = fmt::format("HTTP/1.1 {} {}\r\n", response.status, reason_of(response.status));
  for (const auto& [name, value] : response.headers) {
    const std::string plain = lower(name);
    if (plain == "content-length" || plain == "connection" || plain == "date") continue;
    head += without_breaks(name) + ": " + without_breaks(value) + "\r\n";
  }
  head += "Date: " + http_date(std::time(nullptr)) + "\r\n";
  if (response.stream)
    head += "Transfer-Encoding: chunked\r\n";
  else if (response.status != 204 && response.status != 304)
    head += fmt::format("Content-Length: {}\r\n", content_length);
  head += answer.keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
}

Answer bodiless(Response response, const AnswerOptions& options) {
  Answer answer{.keep_alive = options.keep_alive};
  write_head(answer, response, 0);
  return answer;
}

Answer from_body(const Request& request, Response response, const AnswerOptions& options) {
  if (is_unchanged(request, response)) {
    response.status = 304;
    return bodiless(std::move(response), options);
  }
  const std::string* type = find_header(response, "content-type");
  if (options.compress && response.body.size() >= kLeastToCompress && type &&
      is_compressible(*type) && !has_header(response, "content-encoding")) {
    response.with("Vary", "Accept-Encoding");
    if (accepts_gzip(request.header("accept-encoding"))) {
      response.body = gzip(response.body, 1);
      response.with("Content-Encoding", "gzip");
    }
  }
  Answer answer{.keep_alive = options.keep_alive};
  write_head(answer, response, response.body.size());
  const bool silent = request.method == Method::Head || response.status == 204;
  if (!silent) answer.body = std::move(response.body);
  return answer;
}

Answer not_there(const Request& request, const Response& given, int error,
                 const AnswerOptions& options) {
  const bool absent = error == ENOENT || error == ENOTDIR || error == ELOOP || error == EISDIR ||
                      error == ENAMETOOLONG;
  const std::string name = given.file->filename().string();
  Response response = absent ? Response::json(Json{{"error", name + " is not there"}}, 404)
                             : Response::json(Json{{"error", name + " cannot be opened"}},
                                              error == EACCES ? 403 : 500);
  return from_body(request, std::move(response), options);
}

Answer from_file(const Request& request, Response response, const AnswerOptions& options) {
  OpenFile file(::open(response.file->c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return not_there(request, response, errno, options);
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0 || !S_ISREG(status.st_mode))
    return not_there(request, response, EISDIR, options);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (!has_header(response, "etag"))
    response.with("ETag", fmt::format("\"{:x}-{:x}-{:x}\"", status.st_mtim.tv_sec,
                                      status.st_mtim.tv_nsec, size));
  response.with("Last-Modified", http_date(status.st_mtim.tv_sec));
  response.with("Accept-Ranges", "bytes");
  if (is_unchanged(request, response)) {
    response.status = 304;
    return bodiless(std::move(response), options);
  }
  Answer answer{.file = std::move(file), .length = size, .keep_alive = options.keep_alive};
  const std::string if_range = request.header("if-range");
  Range range;
  if (is_read(request) && response.status == 200 &&
      (if_range.empty() || if_range == *find_header(response, "etag")))
    range = parse_range(request.header("range"), size);
  if (range.kind == Range::Kind::Impossible) {
    response.status = 416;
    erase_header(response, "content-type");
    response.with("Content-Range", fmt::format("bytes */{}", size));
    return bodiless(std::move(response), options);
  }
  if (range.kind == Range::Kind::Part) {
    response.status = 206;
    response.with("Content-Range",
                  fmt::format("bytes {}-{}/{}", range.first, range.first + range.length - 1, size));
    answer.offset = range.first;
    answer.length = range.length;
  }
  write_head(answer, response, answer.length);
  if (request.method == Method::Head) answer.length = 0;
  return answer;
}

Answer from_stream(const Request& request, Response response) {
  Answer answer{.keep_alive = false};
  write_head(answer, response, 0);
  if (request.method != Method::Head) answer.stream = std::move(response.stream);
  return answer;
}

}  // namespace

OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

OpenFile::~OpenFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool OpenFile::read(std::uint64_t offset, char* buffer, std::size_t bytes) const {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, buffer, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    buffer += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

Answer make_answer(const Request& request, Response response, const AnswerOptions& options) {
  if (response.stream) return from_stream(request, std::move(response));
  return response.file ? from_file(request, std::move(response), options)
                       : from_body(request, std::move(response), options);
}

std::string chunked(const std::string& text, bool ended) {
  std::string bytes;
  if (!text.empty()) bytes = fmt::format("{:x}\r\n", text.size()) + text + "\r\n";
  if (ended) bytes += "0\r\n\r\n";
  return bytes;
}

}  // namespace distorch::server
