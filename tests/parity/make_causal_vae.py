"""causal_vae.*: ComfyUI's Wan 2.1 autoencoder (0.33 reads its width off the file), whole and in tiles, checked against diffusers'."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.ldm.wan.vae  # noqa: E402
import comfy.sd  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load  # noqa: E402

SIZES = dict(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2)
IN_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6", "conv_shortcut": "shortcut"}


def original_name(name):
    """diffusers' name -> the original one."""
    part, *rest = name.split(".")
    if part in ("quant_conv", "post_quant_conv"):
        return ".".join(["conv1" if part == "quant_conv" else "conv2", *rest])
    match rest:
        case ["mid_block", "attentions", _, *tail]:
            rest = ["middle.1", *tail]
        case ["mid_block", "resnets", i, *tail]:
            rest = [f"middle.{2 * int(i)}", *tail]
        case ["down_blocks", i, *tail]:
            rest = [f"downsamples.{i}", *tail]
        case ["up_blocks", i, "resnets", j, *tail]:
            rest = [f"upsamples.{4 * int(i) + int(j)}", *tail]
        case ["up_blocks", i, "upsamplers", _, *tail]:
            rest = [f"upsamples.{4 * int(i) + 3}", *tail]
        case [("conv_in" | "conv_out" | "norm_out") as layer, *tail]:
            return ".".join([part, {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}[layer], *tail])
    return ".".join([part, *(IN_RESIDUAL.get(piece, piece) for piece in rest)])


def check_diffusers(state, model, videos, latents):
    from diffusers import AutoencoderKLQwenImage
    theirs = AutoencoderKLQwenImage(base_dim=SIZES["dim"], z_dim=16, dim_mult=SIZES["dim_mult"], num_res_blocks=2)
    names = {name: original_name(name) for name in theirs.state_dict()}
    load(theirs, {name: state[original] for name, original in names.items()})
    for video in videos:
        mean = theirs.encode(video).latent_dist.mean
        assert torch.allclose(mean, model.encode(video), atol=1e-4), "encode"
    for latent in latents:
        decoded, limit = model.decode(latent), theirs.decode(latent).sample
        assert torch.allclose(limit, decoded.clamp(-1, 1), atol=1e-4), "decode"
    return names


def main():
    model = comfy.ldm.wan.vae.WanVAE(temperal_downsample=[False, True, True], **SIZES)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    state = tiny.weights(shapes)
    load(model, state)
    picture, video = tiny.weight("picture", [2, 3, 1, 16, 24]), tiny.weight("video", [1, 3, 11, 16, 16])
    latent, latents = tiny.weight("latent", [1, 16, 1, 3, 2]), tiny.weight("latents", [1, 16, 3, 2, 2])
    vae = comfy.sd.VAE(sd=dict(state))
    large, frames = tiny.weight("large", [1, 16, 4, 5, 4]), tiny.weight("frames", [21, 40, 32, 3])
    with torch.inference_mode():
        out = {"encode/picture": model.encode(picture), "encode/video": model.encode(video),
               "decode/latent": model.decode(latent), "decode/latents": model.decode(latents),
               "decode/tiled": vae.decode_tiled(large, tile_x=4, tile_y=4, overlap=2, tile_t=3, overlap_t=2),
               "encode/tiled": vae.encode_tiled(frames, tile_x=24, tile_y=24, overlap=8, tile_t=17, overlap_t=9),
               "encode/frames": vae.encode(frames[:9]), "decode/large": vae.decode(large[:, :, :1])}
        names = check_diffusers(state, model, [picture, video[:, :, :9]], [latent, latents])
    comfy_env.save("causal_vae", out, {**tiny.manifest(shapes), "diffusers": names})


if __name__ == "__main__":
    main()
