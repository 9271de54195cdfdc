#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace distorch::random_model {

/// How much of the real model a file has.
enum class Size {
  Full,       // all of it
  Truncated,  // the real widths, one or two blocks of each kind
  Tiny,       // narrow as well, where nothing tells the model by its width
};

struct Shape {
  std::string name;  // as in the file
  std::vector<std::int64_t> dims;
};

/// A model whose files are in circulation.
struct Kind {
  const char* name;         // "flux-dev"
  const char* description;  // "FLUX.1 dev, the diffusion model"
  const char* folder;       // of models/: "diffusion_models"
  const char* dtype;        // what its usual file has: "BF16"
  std::function<std::vector<Shape>(Size)> shapes;
  /// The SentencePiece model that the file brings along as `spiece_model`; null: none.
  std::string (*tokenizer)() = nullptr;
  /// The tokens of a byte-pair vocabulary, by rank, that a .gguf file lists; null: none.
  std::vector<std::string> (*byte_pairs)() = nullptr;
  /// Text files that belong beside the model's, by name; null: none.
  std::function<std::map<std::string, std::string>(Size)> beside = nullptr;
  /// Texts in the file's own header, by names; null: none.
  std::function<std::map<std::string, std::string>(Size)> metadata = nullptr;
};

const std::vector<Kind>& kinds();
/// Error(Usage) that lists the names where it is none of them.
const Kind& find_kind(const std::string& name);

}  // namespace distorch::random_model
