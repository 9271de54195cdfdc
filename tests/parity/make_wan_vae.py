"""wan_vae*: ComfyUI's autoencoders of Wan 2.1 and 2.2 on clips of 1, 5 and 17 frames, checked against diffusers' AutoencoderKLWan."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.ldm.wan.vae  # noqa: E402
import comfy.ldm.wan.vae2_2  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_causal_vae import IN_RESIDUAL, original_name  # noqa: E402
from make_models import load  # noqa: E402

FRAMES = {1: 1, 5: 2, 17: 5}  # of a clip -> of its latent
MULT = [1, 2, 4, 4]


def in_groups(name):
    """diffusers' name of the second autoencoder -> the original one: its blocks are lists within lists."""
    part, *rest = name.split(".")
    match rest:
        case [("down_blocks" | "up_blocks") as blocks, i, *tail]:
            names, last = ("downsamples", 2) if blocks == "down_blocks" else ("upsamples", 3)
            j, tail = (tail[1], tail[2:]) if tail[0] == "resnets" else (last, tail[1:])
            return ".".join([part, names, i, names, str(j), *(IN_RESIDUAL.get(piece, piece) for piece in tail)])
    return original_name(name)


def check_diffusers(state, model, rename, clips, latents, **sizes):
    from diffusers import AutoencoderKLWan
    theirs = AutoencoderKLWan(dim_mult=MULT, num_res_blocks=2, **sizes)
    names = {name: rename(name) for name in theirs.state_dict()}
    load(theirs, {name: state[original] for name, original in names.items()})
    for clip in clips:
        assert torch.allclose(theirs.encode(clip).latent_dist.mean, model.encode(clip), atol=1e-4), "encode"
    for latent in latents:
        assert torch.allclose(theirs.decode(latent).sample, model.decode(latent).clamp(-1, 1), atol=1e-4), "decode"
    return names


@torch.inference_mode()
def make(name, model, rename, channels, side, cells, **diffusers):
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    state = tiny.weights(shapes)
    load(model, state)
    clips = {frames: tiny.weight(f"{name} clip {frames}", [1, 3, frames, 2 * side, side]) for frames in FRAMES}
    latents = {frames: tiny.weight(f"{name} latent {frames}", [1, channels, FRAMES[frames], *cells]) for frames in FRAMES}
    out = {f"encode/{frames}": model.encode(clip) for frames, clip in clips.items()}
    out.update({f"decode/{frames}": model.decode(latent) for frames, latent in latents.items()})
    names = check_diffusers(state, model, rename, clips.values(), latents.values(), z_dim=channels, **diffusers)
    comfy_env.save(name, out, {**tiny.manifest(shapes), "diffusers": names})


def main():
    sizes = dict(dim_mult=MULT, num_res_blocks=2, temperal_downsample=[False, True, True])
    make("wan_vae", comfy.ldm.wan.vae.WanVAE(dim=8, z_dim=16, **sizes), original_name, 16, 16, (2, 1), base_dim=8)
    make("wan_vae22", comfy.ldm.wan.vae2_2.WanVAE(dim=8, dec_dim=12, z_dim=48, **sizes), in_groups, 48, 16, (1, 2), base_dim=8, decoder_base_dim=12,
         is_residual=True, in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16)


if __name__ == "__main__":
    main()
