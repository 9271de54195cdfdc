#include "distorch/server/multipart.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "distorch/base/error.h"
#include "distorch/base/text.h"

namespace distorch::server {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::Usage, "body", what); }

std::string_view trimmed(std::string_view text) {
  auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

/// A header's value with what follows it: "form-data; name=\"a\"" gives "form-data" and {name: a}.
struct HeaderValue {
  std::string value;  // lower case
  std::map<std::string, std::string> parameters;
};

/// Reads `"a \" b"` from its opening quote on; `at` ends behind the closing one. A backslash stands
/// for itself unless a quote or another backslash follows: browsers do not escape it.
std::string quoted_text(std::string_view text, std::size_t& at) {
  std::string result;
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    bool escaped =
        text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == '"' || text[at + 1] == '\\');
    if (escaped) ++at;
    result += text[at];
  }
  if (at < text.size()) ++at;
  return result;
}

HeaderValue header_value(std::string_view text) {
  HeaderValue result;
  auto at = std::min(text.find(';'), text.size());
  result.value = lower(trimmed(text.substr(0, at)));
  while (at < text.size()) {
    auto equals = text.find('=', ++at);
    auto next = text.find(';', at);
    if (equals == std::string_view::npos || next < equals) {
      at = std::min(next, text.size());
      continue;
    }
    auto name = lower(trimmed(text.substr(at, equals - at)));
    at = equals + 1;
    while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) ++at;
    std::string value;
    if (at < text.size() && text[at] == '"') {
      value = quoted_text(text, at);
      at = std::min(text.find(';', at), text.size());
    } else {
      auto end = std::min(text.find(';', at), text.size());
      value = trimmed(text.substr(at, end - at));
      at = end;
    }
    result.parameters.emplace(std::move(name), std::move(value));
  }
  return result;
}

/// How browsers write quotes and line breaks into the names of fields and files.
std::string unescaped(std::string text) {
  for (auto [written, meant] : {std::pair{"%22", '"'}, {"%0D", '\r'}, {"%0A", '\n'}})
    for (std::size_t at = text.find(written); at != std::string::npos; at = text.find(written, at))
      text.replace(at, 3, 1, meant);
  return text;
}

std::string boundary_of(std::string_view content_type) {
  auto type = header_value(content_type);
  if (type.value != "multipart/form-data")
    refuse(fmt::format("has the content type '{}'; multipart/form-data is wanted", type.value));
  auto boundary = type.parameters["boundary"];
  if (boundary.empty() || boundary.size() > 70)
    refuse("has a content type without a boundary of 1 to 70 characters");
  return boundary;
}

/// The headers of a part, without the empty line that ends them.
FormPart read_headers(std::string_view text) {
  FormPart part;
  bool named = false;
  while (!text.empty()) {
    auto end = std::min(text.find("\r\n"), text.size());
    auto line = text.substr(0, end);
    text = text.substr(std::min(end + 2, text.size()));
    auto colon = line.find(':');
    if (colon == std::string_view::npos) refuse("has a part with a header line without a colon");
    auto name = lower(trimmed(line.substr(0, colon)));
    auto value = line.substr(colon + 1);
    if (name == "content-type") part.content_type = trimmed(value);
    if (name != "content-disposition") continue;
    auto disposition = header_value(value);
    auto field = disposition.parameters.find("name");
    if (disposition.value != "form-data" || field == disposition.parameters.end()) continue;
    part.name = unescaped(field->second);
    named = true;
    auto file = disposition.parameters.find("filename");
    if (file != disposition.parameters.end()) part.filename = unescaped(file->second);
  }
  if (!named) refuse("has a part without a name (Content-Disposition: form-data; name=...)");
  return part;
}

/// Where the next delimiter line begins, that is CR LF "--" boundary, at `from` or behind it.
std::size_t next_delimiter(std::string_view body, const std::string& delimiter, std::size_t from) {
  auto at = body.find(delimiter, from);
  if (at == std::string_view::npos) refuse("ends before its closing boundary");
  return at;
}

}  // namespace

std::vector<FormPart> read_form(std::string_view body, std::string_view content_type,
                                const FormLimits& limits) {
  auto delimiter = "\r\n--" + boundary_of(content_type);
  // The first boundary may stand at the very start, without a line break before it.
  auto first = std::string_view(delimiter).substr(2);
  std::size_t at = body.substr(0, first.size()) == first
                       ? first.size()
                       : next_delimiter(body, delimiter, 0) + delimiter.size();
  std::vector<FormPart> form;
  while (true) {
    if (body.substr(at, 2) == "--") return form;
    while (at < body.size() && (body[at] == ' ' || body[at] == '\t')) ++at;
    if (body.substr(at, 2) != "\r\n") refuse("has a boundary that no line break follows");
    if (form.size() == limits.parts) refuse(fmt::format("has more than {} parts", limits.parts));
    // The headers' last line break and the empty line; a part may have no header at all.
    auto window = body.substr(at, limits.header_bytes + 4);
    auto headers = window.find("\r\n\r\n");
    if (headers == std::string_view::npos)
      refuse(
          fmt::format("has a part whose headers do not end within {} bytes", limits.header_bytes));
    auto part = read_headers(headers == 0 ? "" : body.substr(at + 2, headers - 2));
    auto begin = at + headers + 4;
    // An empty content shares its line break with the headers' end.
    auto end = next_delimiter(body, delimiter, begin - 2);
    part.content = end < begin ? std::string_view{} : body.substr(begin, end - begin);
    form.push_back(std::move(part));
    at = end + delimiter.size();
  }
}

const FormPart* part_of(const std::vector<FormPart>& form, std::string_view name) {
  auto at = std::find_if(form.begin(), form.end(),
                         [&](const FormPart& part) { return part.name == name; });
  return at == form.end() ? nullptr : &*at;
}

std::string text_of(const std::vector<FormPart>& form, std::string_view name,
                    const std::string& otherwise) {
  const auto* part = part_of(form, name);
  return part ? std::string(part->content) : otherwise;
}

}  // namespace distorch::server
