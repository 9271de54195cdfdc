#pragma once
#include "distorch/models/florence2/language.h"
#include "distorch/models/florence2/vision.h"

namespace distorch::models::florence2 {

/// Florence-2: a picture and a question become an answer, token by token (generate.h).
class Model {
 public:
  explicit Model(const Config& config)
      : config_(config),
        vision_(manifest_, config.vision, config.text.width),
        language_(manifest_, config.text) {}

  const Config& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  const Vision& vision() const { return vision_; }
  const Language& language() const { return language_; }

 private:
  Config config_;
  weights::Manifest manifest_;
  Vision vision_;
  Language language_;
};

}  // namespace distorch::models::florence2
