"""hunyuan_vae.*: ComfyUI's autoencoder of HunyuanVideo, whole and in tiles, with a quarter of the channels, and diffusers' names of it."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.diffusers_convert  # noqa: E402
import comfy.sd  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load  # noqa: E402

CHANNELS, MULT = 32, (1, 2, 2, 2)
REAL = comfy.sd.AutoencoderKL


def narrow(ddconfig, embed_dim):
    return REAL(ddconfig=ddconfig | {"ch": CHANNELS, "ch_mult": list(MULT)}, embed_dim=embed_dim)


def diffusers_names(state):
    from diffusers import AutoencoderKLHunyuanVideo
    theirs = AutoencoderKLHunyuanVideo(block_out_channels=tuple(CHANNELS * m for m in MULT)).state_dict()
    # ComfyUI's own renaming, one tensor at a time.
    names = {name: next(iter(comfy.diffusers_convert.convert_vae_state_dict({name: value}))) for name, value in theirs.items()}
    assert set(names.values()) == set(state), set(names.values()) ^ set(state)
    return names


def main():
    config = {"double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
              "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0, "conv3d": True, "time_compress": 4}
    shapes = {n: list(p.shape) for n, p in narrow(config, 16).state_dict().items()}
    state = tiny.weights(shapes)
    model = load(narrow(config, 16), state)
    comfy.sd.AutoencoderKL = narrow
    vae = comfy.sd.VAE(sd=dict(state))
    large, frames = tiny.weight("large", [1, 16, 4, 5, 4]), tiny.weight("frames", [13, 40, 32, 3])
    with torch.inference_mode():
        out = {f"encode/{count}": model.encode(tiny.weight(f"clip {count}", [1, 3, count, 16, 24])) for count in (1, 6, 9)}
        out |= {f"decode/{count}": model.decode(tiny.weight(f"latent {count}", [1, 16, count, 2, 3])) for count in (1, 2, 3)}
        out |= {"decode/tiled": vae.decode_tiled(large, tile_x=4, tile_y=4, overlap=2, tile_t=3, overlap_t=2)[:, :, ::4, ::4],
                "encode/tiled": vae.encode_tiled(frames, tile_x=24, tile_y=24, overlap=8, tile_t=9, overlap_t=5)}
    comfy_env.save("hunyuan_vae", out, {**tiny.manifest(shapes), "diffusers": diffusers_names(state)})


if __name__ == "__main__":
    main()
