#pragma once

/// What a call of the video transformer may ask for beside a prediction, as names of its inputs
/// (models/network.h). All are numbers but kChange and the residuals.
namespace distorch::models::wan {

/// The frequency of time, counted from 1, that turns by nine tenths of a circle over the whole
/// video: longer videos do not begin anew. Source: RIFLEx (arXiv:2502.15894).
inline constexpr const char* kRiflex = "riflex";
/// How much frames look at each other beyond what was trained (block.h).
inline constexpr const char* kEnhance = "enhance";
/// So many prompts, of equal lengths, lie one behind the other in the text (block.h).
inline constexpr const char* kPrompts = "prompts";
/// How much the speech's tokens count; 1 where nothing is said (speech.h).
inline constexpr const char* kSpeechScale = "speech_scale";
/// In place of a prediction what the layers begin with, float32 and flat. 1: the noise level's
/// embedding [B, frames, width], then its six parts [B, frames, 6 · width]; 2: the video's tokens
/// [B, L, width].
inline constexpr const char* kEntrance = "entrance";
inline constexpr double kTimes = 1, kTokens = 2;
/// The prediction with what all layers add to the tokens, as models/reference_cache.h packs it.
inline constexpr const char* kKeepChange = "keep_change";
/// What stands in place of all layers: what they added in an earlier call, [B, L, width].
inline constexpr const char* kChange = "change";
/// What control networks add to the video's tokens, [n, 1 or B, L, width]: behind each of the first
/// n layers; and behind the first layer and every so many after it (kSpreadEvery, 1 where it is not
/// said). Behind a layer that is skipped there is none.
inline constexpr const char* kResiduals = "residuals";
inline constexpr const char* kSpreadResiduals = "spread_residuals";
inline constexpr const char* kSpreadEvery = "spread_every";

}  // namespace distorch::models::wan
