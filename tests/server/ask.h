#pragma once
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "distorch/base/atomic_file.h"
#include "distorch/server/router.h"
#include "tests/support/temporary_folder.h"

namespace distorch::test {

/// Asks a router as a client would. `address` as it is sent, with its query.
inline server::Response ask(const server::Router& router, server::Method method,
                            const std::string& address, std::string body = "",
                            std::map<std::string, std::string> headers = {}) {
  return router.handle(
      {.method = method, .path = address, .headers = std::move(headers), .body = std::move(body)});
}

inline server::Response get(const server::Router& router, const std::string& address,
                            std::map<std::string, std::string> headers = {}) {
  return ask(router, server::Method::Get, address, "", std::move(headers));
}

inline server::Response post(const server::Router& router, const std::string& address,
                             std::string body, std::map<std::string, std::string> headers = {}) {
  return ask(router, server::Method::Post, address, std::move(body), std::move(headers));
}

/// The answer's JSON; the check fails where the status is another one.
inline server::Json json_of(const server::Response& response, int status = 200) {
  CHECK_MESSAGE(response.status == status, response.body);
  return server::Json::parse(response.body, nullptr, false);
}

inline std::string header_of(const server::Response& response, const std::string& name) {
  for (const auto& [key, value] : response.headers)
    if (key == name) return value;
  return "";
}

/// The bytes that a client would receive.
inline std::string content_of(const server::Response& response) {
  return response.file ? read_file(*response.file) : response.body;
}

inline void write(const std::filesystem::path& file, const std::string& content) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << content;
}

/// One field of a form, or a file where `filename` is given.
struct Field {
  std::string name, content, filename = {};
};

/// A form's body; its content type is kFormType.
inline constexpr const char* kFormType = "multipart/form-data; boundary=XXX";
inline std::string form(const std::vector<Field>& fields) {
  std::string body;
  for (const auto& field : fields) {
    body += "--XXX\r\nContent-Disposition: form-data; name=\"" + field.name + "\"";
    if (!field.filename.empty()) body += "; filename=\"" + field.filename + "\"";
    body += "\r\n\r\n" + field.content + "\r\n";
  }
  return body + "--XXX--\r\n";
}

inline server::Response post_form(const server::Router& router, const std::string& address,
                                  const std::vector<Field>& fields) {
  return post(router, address, form(fields), {{"content-type", kFormType}});
}

}  // namespace distorch::test
