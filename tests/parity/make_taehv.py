"""taehv, taehv22: ComfyUI's small video autoencoders for Wan 2.1 and 2.2, clips of 1, 5 and 9 frames. COMFYUI_DIR: ComfyUI 0.33."""
import torch

import comfy_env

comfy_env.import_comfy()

from comfy.taesd.taehv import TAEHV  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load  # noqa: E402


@torch.inference_mode()
def make(name, channels, side):
    model = TAEHV(latent_channels=channels)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    load(model, tiny.weights(shapes))
    out = {}
    for frames in (1, 5, 9):
        clip = torch.rand([1, 3, frames, side, 2 * side], generator=torch.Generator().manual_seed(frames))
        out[f"encode/{frames}"] = model.encode(clip).contiguous()
        out[f"decode/{frames}"] = model.decode(tiny.weight(f"{name} {frames}", [1, channels, 1 + frames // 4, 1, 2]) * 8).contiguous()
    comfy_env.save(name, out, tiny.manifest(shapes))


if __name__ == "__main__":
    make("taehv", 16, 16)
    make("taehv22", 48, 32)
