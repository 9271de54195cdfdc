"""vae_flux.*, vae_flux2.*: diffusers' autoencoders of SD 3, FLUX and FLUX.2 on tiny weights."""
import torch
from diffusers import AutoencoderKL
from einops import rearrange

import tiny_models as tiny
from comfy_env import save
from make_models import load, seeded, vae_state

torch.set_num_threads(1)


def autoencoder(shapes, z, quant, channels=(32, 64, 64)):
    model = AutoencoderKL(
        block_out_channels=list(channels), layers_per_block=2, latent_channels=z, use_quant_conv=quant,
        use_post_quant_conv=quant, down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels))
    state = vae_state({"first_stage_model." + name: shape for name, shape in shapes.items()}, levels=len(channels),
                      value=lambda name, shape: tiny.weight(name.split("first_stage_model.")[1], shape))
    return load(model, state)


def dump_flux():
    shapes = tiny.vae(mult=(1, 2, 2), prefix="", z=16, quant=False)
    model = autoencoder(shapes, 16, False)
    z, image = seeded([1, 16, 3, 5], 501), seeded([1, 3, 12, 20], 502).clamp(-1, 1)
    with torch.no_grad():
        out = {"z": z, "decoded": model.decode(z).sample, "image": image, "mean": model.encode(image).latent_dist.mean}
    save("vae_flux", out, tiny.manifest(shapes))


def dump_flux2():
    shapes = tiny.vae(mult=(1, 2, 2), prefix="", z=32)
    model = autoencoder(shapes, 32, True)
    shapes |= {"bn.running_mean": [128], "bn.running_var": [128]}
    norm = torch.nn.BatchNorm2d(128, eps=1e-4, affine=False).eval()
    norm.running_mean = tiny.weight("bn.running_mean", [128])
    norm.running_var = 1 + tiny.weight("bn.running_var", [128])
    latent, image = seeded([1, 128, 2, 3], 503), seeded([1, 3, 16, 24], 504).clamp(-1, 1)
    with torch.no_grad():
        packed = rearrange(model.encode(image).latent_dist.mean, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)
        z = latent * (norm.running_var + 1e-4).sqrt()[:, None, None] + norm.running_mean[:, None, None]
        decoded = model.decode(rearrange(z, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2)).sample
        out = {"latent": latent, "decoded": decoded, "image": image, "mean": norm(packed)}
    save("vae_flux2", out, tiny.manifest(shapes))


if __name__ == "__main__":
    dump_flux()
    dump_flux2()
