#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "distorch/graph/value.h"
#include "distorch/server/body_file.h"

namespace distorch::server {

class BodyStream;
using graph::Json;

enum class Method { Get, Head, Post, Put, Patch, Delete, Options };
const char* name_of(Method method);

/// One request, read whole and within the limits of the listener.
struct Request {
  Method method = Method::Get;
  /// Decoded, begins with "/", without the query; "/api" in front has been taken off where the
  /// route is mounted with and without it.
  std::string path;
  /// What a route's pattern left open: "/userdata/{file}" gives {"file": "workflows/a.json"}. Each
  /// value is one segment of the address as it was sent, decoded once (so "%2F" becomes "/" inside a
  /// value).
  std::map<std::string, std::string> parameters;
  /// Decoded, in the order of the address.
  std::vector<std::pair<std::string, std::string>> query;
  /// Names in lower case.
  std::map<std::string, std::string> headers;
  std::string body;
  /// A large body: it is here, and `body` is empty.
  std::shared_ptr<const BodyFile> stored_body;
  /// Set by the listener: the peer's address, without a port.
  std::string peer;

  /// The first of this name, or nothing.
  std::optional<std::string> in_query(std::string_view name) const;
  /// Empty where absent.
  std::string header(std::string_view name) const;
  /// The body, wherever it is; lives as long as the request.
  std::string_view content() const;
  /// The body as JSON. Error(Usage) with where() = "body" where it is none or nested too deeply.
  Json json() const;
};

/// One answer. Either `body`, `file` or `stream` is sent.
struct Response {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  /// A file sent from disk by pieces, with its length, ranges and a validator (ETag).
  std::optional<std::filesystem::path> file;
  /// Sent while it is made (body_stream.h); the connection closes after it.
  std::shared_ptr<BodyStream> stream;

  static Response json(const Json& value, int status = 200);
  static Response text(std::string text, int status = 200);
  static Response bytes(std::string content, std::string content_type);
  static Response from_file(std::filesystem::path path, std::string content_type);
  /// Status alone, with an empty body.
  static Response empty(int status);
  Response& with(std::string name, std::string value);
};

/// Called on a thread of the listener's pool: handlers must be safe to call at the same time. An
/// Error that leaves a handler becomes 400 (Usage, Format), 404 (where() is a name that is not
/// there: throw NotFound) or 500, as {"error": sentence}.
using Handler = std::function<Response(const Request&)>;

}  // namespace distorch::server
