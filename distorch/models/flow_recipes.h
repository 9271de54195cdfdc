#pragma once
#include "distorch/models/text_recipes.h"

/// How the text encoders of flow models are used together.
namespace distorch::models {

/// CLIP-L and OpenCLIP-G side by side, filled up to T5's width, T5 behind them; pooled vectors side
/// by side. What is absent or silent leaves zeros or nothing. Source: ComfyUI
/// comfy/text_encoders/sd3_clip.py, SD3ClipModel.
TextRecipe sd3_recipe(const FoundEncoders& found);

/// States of T5, pooled vector of CLIP-L. Source: ComfyUI comfy/text_encoders/flux.py,
/// FluxClipModel.
TextRecipe flux_recipe(const FoundEncoders& found);

/// Qwen2.5-VL for Qwen-Image and its edit models: last states behind the instructions. Source:
/// ComfyUI comfy/text_encoders/qwen_image.py.
TextRecipe qwen_image_recipe(const FoundEncoders& found);

/// Qwen3-4B for Z-Image: the states of the last layer but one. Source: ComfyUI
/// comfy/text_encoders/z_image.py.
TextRecipe z_image_recipe(const FoundEncoders& found);

/// Qwen3-4B or 8B for FLUX.2 klein: the states before layers 9, 18 and 27 side by side, at least 512
/// tokens. Source: ComfyUI comfy/text_encoders/flux.py, Flux2TEModel.
TextRecipe klein_recipe(const FoundEncoders& found);

/// UMT5 for Wan: 512 tokens at least. Source: ComfyUI comfy/text_encoders/wan.py.
TextRecipe wan_recipe(const FoundEncoders& found);

/// States of Llama 3 (or of LLaVA's language model), pooled vector of CLIP-L. Source: ComfyUI
/// comfy/text_encoders/hunyuan_video.py.
TextRecipe hunyuan_video_recipe(const FoundEncoders& found);

/// T5 for LTX-Video: 128 tokens at least, of which those behind the end do not count. Source: ComfyUI
/// comfy/text_encoders/lt.py.
TextRecipe ltxv_recipe(const FoundEncoders& found);

/// States of Qwen2.5-VL, the third layer from the end, behind the instructions. ByT5's, of words that
/// the video shows, are nobody's text: the node that encodes puts them beside it. Source: ComfyUI
/// comfy/text_encoders/hunyuan_video.py, HunyuanVideo15Tokenizer, and hunyuan_image.py.
TextRecipe hunyuan_video15_recipe(const FoundEncoders& found);

/// The frame that TextEncodeHunyuanVideo_ImageToVideo puts around a text and its picture.
extern const char* const kHunyuanPictureFrame;

/// The frame that TextEncodeQwenImageEditPlus puts around a text that names its pictures itself.
extern const char* const kQwenEditFrame;

}  // namespace distorch::models
