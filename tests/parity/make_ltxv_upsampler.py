"""ltxv_upsampler*.*: ComfyUI's networks that make latents of LTX-Video larger, narrow; in space also with the scale of ltxv_vae, as
LTXVLatentUpsampler calls them. COMFYUI_DIR: ComfyUI 0.33."""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

import comfy.ops  # noqa: E402
from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler  # noqa: E402

import tiny_models as tiny  # noqa: E402

MEAN, SPREAD = "per_channel_statistics.mean-of-means", "per_channel_statistics.std-of-means"


def scale():
    """As make_ltxv_vae.state_of has them."""
    with open(os.path.join(comfy_env.HERE, "ltxv_vae.json"), encoding="utf-8") as f:
        shapes = json.load(f)["tensors"]
    mean, spread = tiny.weight(MEAN, shapes[MEAN]), tiny.weight(SPREAD, shapes[SPREAD]).abs() + 0.5
    return mean.view(1, -1, 1, 1, 1), spread.view(1, -1, 1, 1, 1)


@torch.inference_mode()
def make(name, **config):
    model = LatentUpsampler(comfy.ops.disable_weight_init, in_channels=128, mid_channels=32, num_blocks_per_stage=1, **config)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    model.load_state_dict(tiny.weights(shapes))
    latent = tiny.weight("small", [1, 128, 2, 2, 3])
    out = {"larger": model.eval()(latent)}
    if name == "ltxv_upsampler":
        mean, spread = scale()
        out["node"] = (model(latent * spread + mean) - mean) / spread
    comfy_env.save(name, out, tiny.manifest(shapes))


if __name__ == "__main__":
    make("ltxv_upsampler")
    make("ltxv_upsampler_time", spatial_upsample=False, temporal_upsample=True)
