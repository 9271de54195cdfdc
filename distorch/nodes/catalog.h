#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"

namespace distorch::nodes {

/// Every node type. `app` is asked for the lists that depend on the machine (files, devices) and
/// must outlive the catalog.
void add_all(graph::Catalog& catalog, App& app);

// One line a category; each has a file of that name.
void add_loader_nodes(graph::Catalog& catalog, App& app);
void add_text_loader_nodes(graph::Catalog& catalog, App& app);
void add_multigpu_nodes(graph::Catalog& catalog, App& app);
void add_conditioning_nodes(graph::Catalog& catalog);
void add_sized_prompt_nodes(graph::Catalog& catalog);
void add_qwen_edit_nodes(graph::Catalog& catalog);
void add_flux_nodes(graph::Catalog& catalog);
void add_advanced_model_nodes(graph::Catalog& catalog);
void add_sd3_nodes(graph::Catalog& catalog);
void add_model_patch_nodes(graph::Catalog& catalog);
void add_picture_patch_nodes(graph::Catalog& catalog, App& app);
void add_guidance_nodes(graph::Catalog& catalog);
void add_model_merging_nodes(graph::Catalog& catalog);
void add_controlnet_nodes(graph::Catalog& catalog, App& app);
void add_latent_nodes(graph::Catalog& catalog);
void add_latent_math_nodes(graph::Catalog& catalog);
void add_latent_file_nodes(graph::Catalog& catalog, App& app);
void add_vae_nodes(graph::Catalog& catalog);
void add_image_nodes(graph::Catalog& catalog);
void add_image_file_nodes(graph::Catalog& catalog, App& app);
void add_image_transform_nodes(graph::Catalog& catalog);
void add_image_save_nodes(graph::Catalog& catalog);
void add_image_resize_nodes(graph::Catalog& catalog);
void add_image_batch_nodes(graph::Catalog& catalog);
void add_image_filter_nodes(graph::Catalog& catalog);
void add_clip_vision_nodes(graph::Catalog& catalog, App& app);
void add_upscale_nodes(graph::Catalog& catalog, App& app);
void add_compositing_nodes(graph::Catalog& catalog);
void add_mask_nodes(graph::Catalog& catalog);
void add_mask_operation_nodes(graph::Catalog& catalog);
void add_sampling_nodes(graph::Catalog& catalog);
void add_custom_sampling_nodes(graph::Catalog& catalog);
void add_sampler_nodes(graph::Catalog& catalog);
void add_sigma_nodes(graph::Catalog& catalog);
void add_primitive_nodes(graph::Catalog& catalog);
void add_string_nodes(graph::Catalog& catalog);
void add_math_nodes(graph::Catalog& catalog);
void add_logic_nodes(graph::Catalog& catalog);
void add_preview_nodes(graph::Catalog& catalog);
void add_model_saving_nodes(graph::Catalog& catalog);
void add_color_nodes(graph::Catalog& catalog);
void add_crop_to_mask_nodes(graph::Catalog& catalog);
void add_animation_nodes(graph::Catalog& catalog);
void add_wan_video_nodes(graph::Catalog& catalog);
void add_hunyuan_video_nodes(graph::Catalog& catalog);
void add_any_switch_node(graph::Catalog& catalog);
void add_video_file_nodes(graph::Catalog& catalog, App& app);
void add_video_part_nodes(graph::Catalog& catalog);
void add_video_combine_nodes(graph::Catalog& catalog);
void add_video_load_nodes(graph::Catalog& catalog, App& app);
void add_audio_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
