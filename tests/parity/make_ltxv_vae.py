"""ltxv_vae*.*: ComfyUI's autoencoders of LTX-Video with few blocks, as 0.9, 0.9.1 (noise, told of its level) and 0.9.5 have them."""
import json

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE  # noqa: E402

import tiny_models as tiny  # noqa: E402

COMMON = {"dims": 3, "latent_channels": 128, "norm_layer": "pixel_norm", "patch_size": 4, "latent_log_var": "uniform"}
FORMS = {
    "ltxv_vae": {"blocks": [["compress_all", 1], ["compress_all", 1], ["res_x_y", 1], ["compress_all", 1], ["res_x", 1]]},
    "ltxv_vae_timed": {
        "encoder_blocks": [["res_x", {"num_layers": 1}], ["compress_all", {}], ["res_x", 1]],
        "decoder_blocks": [["res_x", {"num_layers": 1, "inject_noise": True}], ["compress_all", {"residual": True, "multiplier": 2}],
                           ["res_x", {"num_layers": 2, "inject_noise": False}]],
        "timestep_conditioning": True},
    "ltxv_vae_newer": {
        "encoder_blocks": [["res_x", 1], ["compress_space_res", {"multiplier": 2}], ["compress_time_res", {"multiplier": 2}], ["compress_all_res", {"multiplier": 1}]],
        "decoder_blocks": [["res_x", 1], ["compress_all", {"residual": True, "multiplier": 2}], ["compress_space", 1], ["compress_time", 1], ["res_x", 1]],
        "causal_decoder": True, "spatial_padding_mode": "zeros", "timestep_conditioning": False},
}
# Frames to a latent frame, pixels to a cell: the first form's are the published ones.
SCALES = {"ltxv_vae": (8, 32), "ltxv_vae_timed": (2, 8), "ltxv_vae_newer": (4, 16)}
SPREAD, SCALE = "per_channel_statistics.std-of-means", "decoder.timestep_scale_multiplier"


def state_of(shapes):
    state = tiny.weights(shapes)
    state[SPREAD] = state[SPREAD].abs() + 0.5  # deviations are above 0
    if SCALE in state:
        state[SCALE] = torch.tensor(1000.0)
    return state


def build(name):
    config = COMMON | FORMS[name]
    model = VideoVAE(config=config)
    shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
    model.load_state_dict(state_of(shapes))
    return model.eval(), shapes, config


def main():
    for name in FORMS:
        model, shapes, config = build(name)
        time, side = SCALES[name]
        frames = 9  # ComfyUI takes 1 + 8 · n of them, whatever the blocks
        out = {}
        with torch.inference_mode():
            for count in (1, frames):
                out[f"encode/{count}"] = model.encode(tiny.weight(f"clip {count}", [1, 3, count, 2 * side, 2 * side]))
            for count in (1, 3):
                torch.manual_seed(42)
                decoded = model.decode(tiny.weight(f"latent {count}", [1, 128, count, 2, 2]))
                assert decoded.shape[2:] == (1 + (count - 1) * time, 2 * side, 2 * side)
                out[f"decode/{count}"] = decoded[..., ::side // 8, ::side // 8]
        comfy_env.save(name, out, {**tiny.manifest(shapes), "config": json.dumps({"vae": config})})


if __name__ == "__main__":
    main()
