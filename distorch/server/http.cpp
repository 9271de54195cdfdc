#include "distorch/server/http.h"

#include "distorch/base/text.h"
#include "distorch/graph/json_text.h"

namespace distorch::server {

const char* name_of(Method method) {
  switch (method) {
    case Method::Get: return "GET";
    case Method::Head: return "HEAD";
    case Method::Post: return "POST";
    case Method::Put: return "PUT";
    case Method::Patch: return "PATCH";
    case Method::Delete: return "DELETE";
    case Method::Options: return "OPTIONS";
  }
  return "GET";
}

std::optional<std::string> Request::in_query(std::string_view name) const {
  for (const auto& [key, value] : query)
    if (key == name) return value;
  return std::nullopt;
}

std::string Request::header(std::string_view name) const {
  auto found = headers.find(lower(name));
  return found == headers.end() ? "" : found->second;
}

std::string_view Request::content() const {
  return stored_body ? stored_body->bytes() : std::string_view(body);
}

Json Request::json() const {
  try {
    return graph::parse_json(content(), "body");
  } catch (const Error& error) {
    throw Error(ErrorKind::Usage, "body", error.sentence());
  }
}

Response Response::json(const Json& value, int status) {
  Response response{.status = status, .body = graph::json_line(value)};
  response.with("Content-Type", "application/json; charset=utf-8");
  return response;
}

Response Response::text(std::string text, int status) {
  Response response{.status = status, .body = std::move(text)};
  response.with("Content-Type", "text/plain; charset=utf-8");
  return response;
}

Response Response::bytes(std::string content, std::string content_type) {
  Response response{.body = std::move(content)};
  response.with("Content-Type", std::move(content_type));
  return response;
}

Response Response::from_file(std::filesystem::path path, std::string content_type) {
  Response response;
  response.file = std::move(path);
  response.with("Content-Type", std::move(content_type));
  return response;
}

Response Response::empty(int status) { return Response{.status = status}; }

Response& Response::with(std::string name, std::string value) {
  headers.emplace_back(std::move(name), std::move(value));
  return *this;
}

}  // namespace distorch::server
