#pragma once
#include <functional>
#include <string>

#include "distorch/base/error.h"
#include "distorch/server/http.h"

namespace distorch::server {

/// What a handler of /api/v2 refuses: answered as {"error": {"code", "message", "details"}}.
class RefusedV2 : public Error {
 public:
  RefusedV2(int status, std::string code, const std::string& sentence, Json details = nullptr)
      : Error(ErrorKind::Usage, std::move(code), sentence),
        status_(status),
        details_(std::move(details)) {}
  int status() const { return status_; }
  const std::string& code() const { return where(); }
  const Json& details() const { return details_; }

 private:
  int status_;
  Json details_;
};

/// Errors that leave the handler become envelopes: RefusedV2 as it says, names that are not there
/// 404 not_found, everything else that a client did wrong 422 invalid_request.
Handler with_envelope(Handler handler);

/// An object as body. Error as above.
Json object_of(const Request& request);

/// A time as the interface writes it: ISO 8601, UTC, with milliseconds.
std::string iso_time(std::int64_t ms);

/// "http://127.0.0.1:8188", by what the client asked for: links begin with it.
std::string base_of(const Request& request, bool encrypted);

/// How long links and jobs are said to hold at least.
inline constexpr std::int64_t kRetentionMs = std::int64_t{24} * 3600 * 1000;

}  // namespace distorch::server
