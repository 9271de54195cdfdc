"""taesd.*, taesd16.*: ComfyUI's small autoencoder, of 4 and of 16 channels, checked against diffusers'."""
import torch

import comfy_env

comfy_env.import_comfy()

from comfy.taesd.taesd import TAESD  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load, seeded  # noqa: E402


def check_diffusers(model, state, channels, latent, image):
    from diffusers import AutoencoderTiny
    theirs = AutoencoderTiny(latent_channels=channels)
    names = {}
    for name in theirs.state_dict():
        half, _, index, tail = name.split(".", 3)
        names[name] = state[f"taesd_{half}.{int(index) + (half == 'decoder')}.{tail}"]
    load(theirs, names)
    assert torch.allclose(theirs.decode(latent).sample, model.taesd_decoder(latent) * 2 - 1, atol=1e-5)
    assert torch.allclose(theirs.encode(image).latents, model.taesd_encoder(image / 2 + 0.5), atol=1e-5)


def dump(name, channels, scale, shift):
    model = TAESD(latent_channels=channels)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items() if n.startswith("taesd_")}
    state = {n: tiny.weight(n, shape) for n, shape in shapes.items()}
    load(model, {**state, "vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)})
    latent, image = seeded([1, channels, 3, 4], 701), seeded([1, 3, 16, 24], 702).clamp(-1, 1)
    with torch.no_grad():
        check_diffusers(model, state, channels, latent, image)
        out = {"latent": latent, "image": image, "decoded": model.decode(latent), "encoded": model.encode(image)}
    comfy_env.save(name, out, {**tiny.manifest(shapes), "scale": scale, "shift": shift})


if __name__ == "__main__":
    dump("taesd", 4, 0.18215, 0.0)
    dump("taesd16", 16, 0.3611, 0.1159)
