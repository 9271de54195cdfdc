#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace distorch::server {

/// One field of a form.
struct FormPart {
  std::string name;
  std::optional<std::string> filename;  // set for files, without decoding
  std::string content_type;             // "" where the part has none
  std::string_view content;             // lies in the body that was read
};

struct FormLimits {
  std::size_t parts = 64;
  std::size_t header_bytes = 8192;  // of one part
};

/// Reads a body of type multipart/form-data (RFC 7578); the parts live as long as `body`.
/// Error(Usage, "body") says what is wrong with it: another content type, no boundary, a part
/// without a name, a body cut short, more parts or longer headers than the limits. Bytes before the
/// first and after the last boundary are passed over, as is any header that is not known.
std::vector<FormPart> read_form(std::string_view body, std::string_view content_type,
                                const FormLimits& limits = {});

/// The first part of that name, or nullptr.
const FormPart* part_of(const std::vector<FormPart>& form, std::string_view name);

/// Its text, or `otherwise`.
std::string text_of(const std::vector<FormPart>& form, std::string_view name,
                    const std::string& otherwise = "");

}  // namespace distorch::server
