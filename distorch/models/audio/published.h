#pragma once
#include <string>

#include "distorch/models/audio/wav2vec2.h"

namespace distorch::models::audio {

/// What the folder of a published encoder says beside its weights.
struct PublishedText {
  std::string text;
  std::string where;  // the file that it is of, for messages
};

/// Error(Format) naming the file and the entry unless config.json describes the encoder that the
/// weights' shapes tell. Source: transformers, Wav2Vec2Config.
void check_published(const Wav2Vec2Config& encoder, const PublishedText& config);
/// Whether preprocessor_config.json says that sound is brought to the mean 0 and the spread 1 before
/// it is heard. Error(Format) as above, also where it says no and the form of the encoder does so
/// by itself. Source: transformers, Wav2Vec2FeatureExtractor.
bool levels_sound(const Wav2Vec2Config& encoder, const PublishedText& preprocessor);

}  // namespace distorch::models::audio
