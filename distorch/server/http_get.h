#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace distorch::server {

/// What stands before the body of an answer.
struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  /// "" where there is no such header.
  std::string header(const std::string& lower_case_name) const;
};

/// One GET of an address, "http://host:port/path?query" or "https://...".
struct HttpGet {
  std::string url;
  std::map<std::string, std::string> headers;
  /// Called once, when the head of the answer is there; where it says no the body is not read.
  std::function<bool(const HttpAnswer&)> begins;
  /// Called with every piece of the body as it comes.
  std::function<void(std::string_view)> piece;
};

/// Asks and reads to the end. Redirections are not followed. Certificates are checked against those
/// that the system trusts. Stops with Error(Interrupted) where the calling thread's run is to stop.
/// Error(Usage) where the address is none; Error(Format) with the address where nobody answers, the
/// connection breaks before the end, or nothing comes for a minute.
HttpAnswer http_get(const HttpGet& get);

/// Scheme, host and port of an address: "https://host:443". Error(Usage) where it is none.
std::string origin_of(const std::string& url);
/// The address that a redirection from `url` to `location` leads to. Error(Format) where it leads
/// from https to anything else.
std::string redirected(const std::string& url, const std::string& location);

}  // namespace distorch::server
