"""hunyuan_video15.*: the transformer of HunyuanVideo 1.5 and what its conditionings become, by ComfyUI 0.33 on a tiny model.

COMFYUI_DIR: ComfyUI 0.33."""
import types

from comfy_env import import_comfy, save

import_comfy()

import torch  # noqa: E402

import comfy.latent_formats  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.ops  # noqa: E402
from comfy.ldm.hunyuan_video import model as network  # noqa: E402

import tiny_models as tiny  # noqa: E402

torch.set_num_threads(1)
HIDDEN, HEAD, TEXT, GLYPHS, VISION = 64, 32, 24, 20, 16
MAPPER = network.ByT5Mapper


def narrow(in_dim, out_dim, hidden_dim, out_dim1, **kwargs):
    return MAPPER(in_dim=GLYPHS, hidden_dim=28, out_dim=26, out_dim1=out_dim1, **kwargs)


network.ByT5Mapper = narrow


def build():
    model = network.HunyuanVideo(
        image_model="hunyuan_video", dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init, in_channels=65, out_channels=32,
        vec_in_dim=None, context_in_dim=TEXT, hidden_size=HIDDEN, mlp_ratio=4.0, num_heads=HIDDEN // HEAD, depth=2, depth_single_blocks=0,
        axes_dim=[4, 14, 14], theta=256, patch_size=[1, 1, 1], qkv_bias=True, guidance_embed=False, byt5=True, meanflow=False,
        use_cond_type_embedding=True, vision_in_dim=VISION, meanflow_sum=True)
    shapes, state = {}, {}
    for name, value in model.state_dict().items():
        shapes[name] = list(value.shape)
        state[name] = tiny.weight(name, list(value.shape))
    model.load_state_dict(state)
    return model.eval(), shapes


def seeded(name, *shape):
    return tiny.weight(name, list(shape))


CASES = {
    "text": dict(batch=2, frames=2, tokens=5),
    "glyphs": dict(batch=1, frames=1, tokens=4, glyphs=3),
    "vision": dict(batch=1, frames=3, tokens=4, vision=5),
    "all": dict(batch=2, frames=2, tokens=4, glyphs=2, vision=3),
}


def network_cases(model):
    out = {}
    for name, c in CASES.items():
        b = c["batch"]
        x = torch.cat([seeded(f"{name} x", b, 32, c["frames"], 3, 4), seeded(f"{name} concat", b, 33, c["frames"], 3, 4)], 1)
        more = {}
        if "glyphs" in c:
            more["txt_byt5"] = seeded(f"{name} glyphs", b, c["glyphs"], GLYPHS)
        if "vision" in c:
            more["clip_fea"] = seeded(f"{name} vision", b, c["vision"], VISION)
        with torch.no_grad():
            out[f"network/{name}"] = model(x, torch.tensor([900.0, 350.0][:b]), seeded(f"{name} context", b, c["tokens"], TEXT), **more)
    # Padding that nobody attends to: as if it were not there, but for the mean of the text.
    mask = torch.tensor([[1, 1, 1, 0]])
    c = CASES["vision"]
    with torch.no_grad():
        out["network/masked"] = model(torch.cat([seeded("vision x", 1, 32, 3, 3, 4), seeded("vision concat", 1, 33, 3, 3, 4)], 1), torch.tensor([900.0]),
                                      seeded("vision context", 1, c["tokens"], TEXT), attention_mask=mask)
    return out


def concat_cases():
    """concat_cond of ComfyUI's class around a network of which only the first weight is asked for."""
    weight = types.SimpleNamespace(shape=[HIDDEN, 65])
    form = comfy.latent_formats.HunyuanVideo15()
    this = types.SimpleNamespace(diffusion_model=types.SimpleNamespace(img_in=types.SimpleNamespace(proj=types.SimpleNamespace(weight=weight))),
                                 latent_format=form, process_latent_in=form.process_in)
    noise = torch.zeros([2, 32, 3, 4, 6])
    mask = torch.ones([1, 1, 3, 4, 6])
    mask[:, :, :1] = 0.0
    wide = torch.ones([1, 1, 2, 6, 10])
    wide[:, :, :, :, :5] = 0.0
    cases = {"nothing": {}, "start": dict(concat_latent_image=seeded("start", 1, 32, 3, 4, 6), concat_mask=mask),
             "other size": dict(concat_latent_image=seeded("other size", 1, 32, 3, 6, 10), concat_mask=wide)}
    # Every third channel says enough.
    return {f"concat/{name}": comfy.model_base.HunyuanVideo15.concat_cond(this, noise=noise, device="cpu", **given)[:1, ::3] for name, given in cases.items()}


def main():
    model, shapes = build()
    tensors = network_cases(model) | concat_cases()
    probe = sorted(shapes)[:3]
    save("hunyuan_video15", tensors, {"tensors": shapes, "cases": CASES, "first_values": {n: tiny.weight(n, shapes[n]).flatten()[:4].tolist() for n in probe}})


if __name__ == "__main__":
    main()
