#pragma once
#include <filesystem>
#include <functional>
#include <regex>
#include <string>
#include <vector>

#include "distorch/convert/form.h"

namespace distorch::convert {

/// Weights whose name the expression is found in are written as that form. First rule that fits.
struct Rule {
  std::string text;  // "norm|embed=bf16"
  std::regex names;
  const Form* form = nullptr;  // null ("=keep"): as it is in the file
};

/// Reads "EXPRESSION=TYPE"; TYPE may be "keep". Error(Usage) quoting the text.
Rule parse_rule(const std::string& text);

/// What quantised forms leave alone where no rule says otherwise: small and sensitive layers.
extern const char* const kLeftAlone;

struct Request {
  std::filesystem::path from, to;
  const Form* form = nullptr;
  std::vector<Rule> rules;
  /// For GGUF, as ComfyUI-GGUF calls the model's kind: "flux", "sd1". May be empty.
  std::string architecture;
  /// Called now and then with bytes of the source that are done, and all of them.
  std::function<void(std::int64_t done, std::int64_t all)> progress;
};

struct Report {
  std::int64_t bytes_before = 0, bytes_after = 0;  // of tensors; of the file
  std::int64_t converted = 0, kept = 0;            // weights
  std::int64_t numbers = 0, converted_bytes = 0;   // of those that were converted, after it
};

/// Reads `from` (any format that formats::open_tensor_file() knows; a part of a model in several
/// files stands for all of them), writes `to` (safetensors; GGUF where the form is one of its types
/// or the name ends so). Metadata is copied. Memory does not depend on the model's size. Stops at
/// throw_if_interrupted(). Whatever goes wrong, nothing is left of `to`, and a file that was there
/// before is as it was. Error(Usage) where `to` is one of the files that are read.
Report convert(const Request& request);

}  // namespace distorch::convert
