#pragma once
#include "distorch/models/text_recipes.h"
#include "tests/models/tiny.h"

/// Text encoders of the tiny models, from prompts on.
namespace distorch::test {

inline std::shared_ptr<models::Vocabularies> vocabularies() {
  static auto shared =
      std::make_shared<models::Vocabularies>(source_dir() / ".deps" / "tokenizers" / "clip");
  return shared;
}

/// A recipe's encoders with their weights in float32.
class LoadedRecipe {
 public:
  explicit LoadedRecipe(models::TextRecipe recipe,
                        std::shared_ptr<models::Vocabularies> words = vocabularies())
      : recipe_(std::move(recipe)) {
    for (const auto& part : recipe_.encoders) {
      encoders_.push_back(part.make(words));
      auto& manifest = encoders_.back()->manifest();
      check_complete(manifest, part.part, part.name);
      sources_.push_back(std::make_unique<TwiceSource>(manifest, part.part, at::kFloat));
    }
  }
  models::TextStates operator()(const models::Prompt& prompt) {
    std::vector<models::TextStates> each;
    for (auto& encoder : encoders_)
      each.push_back(encoder->encode(encoder->tokenize(prompt, nullptr), {}, at::kCPU));
    return models::joined(recipe_.join, each);
  }
  const models::TextEncoder& encoder(std::size_t i) const { return *encoders_.at(i); }

 private:
  models::TextRecipe recipe_;
  std::vector<std::unique_ptr<models::TextEncoder>> encoders_;
  std::vector<std::unique_ptr<TwiceSource>> sources_;
};

inline nlohmann::json cases_of(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(parity_dir() / (name + ".json"))).at("cases");
}

}  // namespace distorch::test
