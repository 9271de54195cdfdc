#include "distorch/server/answers.h"

#include "distorch/base/text.h"

namespace distorch::server {

Response refusal(int status, const std::string& sentence) {
  return Response::json(Json{{"error", sentence}}, status);
}

Response refusal(int status, const Error& error) { return refusal(status, error.what()); }

std::string query_text(const Request& request, std::string_view name) {
  return request.in_query(name).value_or("");
}

bool is_true(const Request& request, std::string_view name) {
  auto text = lower(query_text(request, name));
  return text == "true" || text == "1";
}

std::string header_quoted(const std::string& name) {
  std::string text;
  for (char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) continue;
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

}  // namespace distorch::server
