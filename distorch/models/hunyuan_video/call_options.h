#pragma once

/// What a call of the video transformer may ask for beside a prediction, as names of its inputs
/// (models/network.h). All are numbers but kChange.
namespace distorch::models::hunyuan_video {

/// The base of the rotary positions in place of kTheta.
inline constexpr const char* kBase = "rope_theta";
/// The frequency of time, counted from 1, that turns by nine tenths of a circle over the whole
/// video: longer videos do not begin anew. Source: RIFLEx (arXiv:2502.15894).
inline constexpr const char* kRiflex = "riflex";
/// How much frames look at each other beyond what was trained, and in which blocks: 1 the double
/// ones, 2 the single ones, 3 both. Source: Enhance-A-Video (arXiv:2502.07508).
inline constexpr const char* kEnhance = "enhance";
inline constexpr const char* kEnhancedBlocks = "enhanced_blocks";
/// The last item of the batch is weakened in this single block, counted from 1: its video's tokens
/// see themselves and the text alone (kApart), or the block leaves all others as they are
/// (kResidual). Source: spatio-temporal skip guidance (arXiv:2411.18664) as in
/// ComfyUI-HunyuanVideoWrapper.
inline constexpr const char* kWeakBlock = "weak_block";
inline constexpr const char* kWeakWay = "weak_way";
inline constexpr double kApart = 1, kResidual = 2;
/// Frames that are given are not told the guidance.
inline constexpr const char* kGivenUnguided = "given_unguided";
/// In place of a prediction what the first double block attends with, the video's tokens after its
/// norm and modulation, [B, L, D] float32 and flat.
inline constexpr const char* kEntrance = "entrance";
/// The prediction with what all blocks add to the video's tokens, as models/reference_cache.h packs
/// it.
inline constexpr const char* kKeepChange = "keep_change";
/// What stands in place of all blocks: what they added in an earlier call, [B, L, D].
inline constexpr const char* kChange = "change";

}  // namespace distorch::models::hunyuan_video
