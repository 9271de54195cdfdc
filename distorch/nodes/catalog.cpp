#include "distorch/nodes/catalog.h"

#include "distorch/nodes/audio_encoder.h"
#include "distorch/nodes/diffusers_loader.h"
#include "distorch/nodes/florence2.h"
#include "distorch/nodes/helpers.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/kj_nodes.h"
#include "distorch/nodes/ltxv.h"
#include "distorch/nodes/mmaudio.h"
#include "distorch/nodes/pulid.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/xlabs.h"

namespace distorch::nodes {

void add_all(graph::Catalog& catalog, App& app) {
  add_sampling_nodes(catalog);
  add_custom_sampling_nodes(catalog);
  add_sampler_nodes(catalog);
  add_sigma_nodes(catalog);
  add_loader_nodes(catalog, app);
  add_text_loader_nodes(catalog, app);
  add_multigpu_nodes(catalog, app);
  add_conditioning_nodes(catalog);
  add_sized_prompt_nodes(catalog);
  add_qwen_edit_nodes(catalog);
  add_flux_nodes(catalog);
  add_advanced_model_nodes(catalog);
  add_sd3_nodes(catalog);
  add_model_patch_nodes(catalog);
  add_picture_patch_nodes(catalog, app);
  add_guidance_nodes(catalog);
  add_model_merging_nodes(catalog);
  add_model_saving_nodes(catalog);
  add_controlnet_nodes(catalog, app);
  add_latent_nodes(catalog);
  add_latent_math_nodes(catalog);
  add_latent_file_nodes(catalog, app);
  add_vae_nodes(catalog);
  add_image_nodes(catalog);
  add_image_file_nodes(catalog, app);
  add_image_transform_nodes(catalog);
  add_image_save_nodes(catalog);
  add_image_resize_nodes(catalog);
  add_image_batch_nodes(catalog);
  add_image_filter_nodes(catalog);
  add_color_nodes(catalog);
  add_crop_to_mask_nodes(catalog);
  add_animation_nodes(catalog);
  add_wan_video_nodes(catalog);
  add_hunyuan_video_nodes(catalog);
  add_ltxv_nodes(catalog);
  add_ltxv_pack_nodes(catalog, app);
  add_latent_upscale_nodes(catalog, app);
  add_hyvideo_wrapper_nodes(catalog, app);
  add_any_switch_node(catalog);
  add_wan_wrapper_nodes(catalog, app);
  add_kj_nodes(catalog);
  add_video_file_nodes(catalog, app);
  add_video_part_nodes(catalog);
  add_video_combine_nodes(catalog);
  add_video_load_nodes(catalog, app);
  add_audio_nodes(catalog, app);
  add_audio_encoder_nodes(catalog, app);
  add_clip_vision_nodes(catalog, app);
  add_diffusers_loader_nodes(catalog, app);
  add_upscale_nodes(catalog, app);
  add_compositing_nodes(catalog);
  add_mask_nodes(catalog);
  add_mask_operation_nodes(catalog);
  add_primitive_nodes(catalog);
  add_string_nodes(catalog);
  add_math_nodes(catalog);
  add_logic_nodes(catalog);
  add_preview_nodes(catalog);
  add_helper_nodes(catalog);
  add_florence2_loader_nodes(catalog, app);
  add_florence2_run_node(catalog);
  add_xlabs_loader_nodes(catalog, app);
  add_xlabs_sampler_node(catalog);
  add_xlabs_prompt_nodes(catalog, app);
  add_mmaudio_loader_nodes(catalog, app);
  add_mmaudio_sampler_node(catalog);
  add_pulid_loader_nodes(catalog, app);
  add_pulid_nodes(catalog);
}

}  // namespace distorch::nodes
