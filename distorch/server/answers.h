#pragma once
#include <string>

#include "distorch/base/error.h"
#include "distorch/server/http.h"

namespace distorch::server {

/// {"error": sentence} with a status: how a handler refuses a request by itself.
Response refusal(int status, const std::string& sentence);
/// The same for an error that was caught; what() with its place.
Response refusal(int status, const Error& error);

/// Whether a query parameter says yes: "true" in any case, or "1".
bool is_true(const Request& request, std::string_view name);

/// A parameter of the query, "" where it is absent.
std::string query_text(const Request& request, std::string_view name);

/// A name as it stands between the quotes of a Content-Disposition header.
std::string header_quoted(const std::string& name);

/// What `work` returns; where it throws Error(Usage), a refusal with this status. For the names of
/// files, which are refused with another status than the rest.
template <class Work>
Response or_refusal(int status, Work&& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Usage) throw;
    return refusal(status, error);
  }
}

}  // namespace distorch::server
