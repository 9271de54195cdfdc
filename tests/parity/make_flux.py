"""flux_*.*: ComfyUI's FLUX classes (and diffusers') on tiny models.

`python make_flux.py` with ComfyUI 0.3.64 makes FLUX.1; `python make_flux.py second` with 0.33 makes FLUX.2.
"""
import sys

SECOND = sys.argv[1:] == ["second"]

from comfy_env import import_comfy, save  # noqa: E402

import_comfy()

import torch  # noqa: E402

import comfy.ops  # noqa: E402
from comfy.ldm.flux.model import Flux  # noqa: E402

import tiny_models as tiny  # noqa: E402

torch.set_num_threads(1)
HIDDEN, HEAD = 64, 32


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def common(**more):
    return dict(vec_in_dim=20, context_in_dim=24, hidden_size=HIDDEN, mlp_ratio=4.0, num_heads=HIDDEN // HEAD, depth=2,
                depth_single_blocks=2, axes_dim=[4, 14, 14], theta=10000, patch_size=2, qkv_bias=True,
                out_channels=16, in_channels=16, guidance_embed=True) | more


def build(config):
    """The model with seeded weights, and names and shapes of its tensors (norms end in "weight")."""
    model = Flux(image_model="flux", dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init, **config)
    state, shapes = {}, {}
    for name, value in model.state_dict().items():
        ours = name.replace("_norm.scale", "_norm.weight")
        shapes[ours] = list(value.shape)
        state[name] = tiny.weight(ours, shapes[ours])
    model.load_state_dict(state)
    return model.eval(), shapes


def dump(name, config, cases, extra=None):
    model, shapes = build(config)
    tensors, listed = {}, []
    for case, inputs in cases.items():
        inputs = {k: v for k, v in inputs.items() if v is not None}
        call = dict(inputs)
        x = call.pop("x")
        if "concat" in call:
            x = torch.cat([x, call.pop("concat")], 1)
        references = [call.pop(k) for k in sorted(call) if k.startswith("ref")]
        method = call.pop("method", None)
        if references:
            call["ref_latents"] = [r.clone() for r in references]
        if method:
            call["ref_latents_method"] = method
        with torch.no_grad():
            out = model(x, call.pop("timestep"), call.pop("context"), **call)
        listed.append({"name": case, "method": method, "references": len(references)})
        tensors |= {f"{case}/{k}": v for k, v in inputs.items() if k != "method"}
        tensors[f"{case}/out"] = out[:, :config["out_channels"]]
    probe = sorted(shapes)[:3]
    save(name, tensors, {"tensors": shapes, "cases": listed,
                         "first_values": {n: tiny.weight(n, shapes[n]).flatten()[:4].tolist() for n in probe}})


def inputs(batch=2, h=6, w=8, channels=16, tokens=5, context=24, vector=20, seed=1, **more):
    return dict(x=seeded([batch, channels, h, w], seed), timestep=torch.tensor([0.9, 0.35][:batch]),
                context=seeded([batch, tokens, context], seed + 1),
                y=seeded([batch, vector], seed + 2) if vector else None) | more


def first():
    guided = dict(guidance=torch.tensor([3.5, 2.0]))
    dump("flux_dev", common(), {
        "main": inputs(**guided),
        "odd": inputs(h=5, w=7, seed=11, **guided),
        "unguided": inputs(seed=21, y=None),
        "offset": inputs(seed=31, ref0=seeded([2, 16, 4, 6], 35), ref1=seeded([2, 16, 7, 3], 36), ref2=seeded([2, 16, 2, 2], 37),
                         **guided),
        "index": inputs(seed=41, ref0=seeded([2, 16, 4, 6], 45), ref1=seeded([2, 16, 7, 3], 46), method="index", **guided),
        "uxo": inputs(seed=51, ref0=seeded([2, 16, 4, 5], 55), ref1=seeded([2, 16, 7, 3], 56), method="uxo", **guided),
    })
    dump("flux_schnell", common(guidance_embed=False), {"main": inputs(seed=61)})
    dump("flux_fill", common(in_channels=96), {"main": inputs(seed=71, concat=seeded([2, 80, 6, 8], 75), **guided)})
    dump("flux_canny", common(in_channels=32), {"main": inputs(seed=81, concat=seeded([2, 16, 6, 8], 85), **guided)})
    by_diffusers()


def packed(x):
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def by_diffusers():
    from diffusers import FluxTransformer2DModel
    model = FluxTransformer2DModel(patch_size=1, in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=HEAD,
                                   num_attention_heads=HIDDEN // HEAD, joint_attention_dim=24, pooled_projection_dim=20,
                                   guidance_embeds=True, axes_dims_rope=(4, 14, 14))
    shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
    model.load_state_dict(tiny.weights(shapes))
    given = inputs(seed=91, guidance=torch.tensor([3.5, 2.0]))
    ids = torch.zeros(3, 4, 3)
    ids[..., 1] += torch.arange(3)[:, None]
    ids[..., 2] += torch.arange(4)[None]
    with torch.no_grad():
        out = model.eval()(hidden_states=packed(given["x"]), encoder_hidden_states=given["context"],
                           pooled_projections=given["y"], timestep=given["timestep"], guidance=given["guidance"],
                           img_ids=ids.reshape(-1, 3), txt_ids=torch.zeros(5, 3), return_dict=False)[0]
    out = out.view(2, 3, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(2, 16, 6, 8)
    tensors = {f"main/{k}": v for k, v in given.items()} | {"main/out": out}
    save("flux_diffusers", tensors, {"tensors": shapes, "cases": [{"name": "main", "method": None, "references": 0}],
                                     "first_values": {}})


def second():
    klein = common(vec_in_dim=None, mlp_ratio=3.0, axes_dim=[8, 8, 8, 8], theta=2000, patch_size=1, out_channels=128, in_channels=128,
                   qkv_bias=False, global_modulation=True, mlp_silu_act=True, ops_bias=False, default_ref_method="index",
                   ref_index_scale=10.0, txt_ids_dims=[3], guidance_embed=False)
    small = dict(h=3, w=4, channels=128, vector=0)
    dump("flux2_klein", klein, {
        "main": inputs(**small),
        "references": inputs(**small, seed=11, ref0=seeded([2, 128, 2, 3], 15), ref1=seeded([2, 128, 3, 2], 16)),
        "index_timestep_zero": inputs(**small, seed=21, ref0=seeded([2, 128, 2, 3], 25), ref1=seeded([2, 128, 3, 2], 26),
                                      method="index_timestep_zero"),
    })
    dump("flux2_dev", klein | dict(guidance_embed=True), {"main": inputs(**small, guidance=torch.tensor([3.5, 2.0]))})


second() if SECOND else first()
