"""sd3_*.*: tiny MM-DiTs, computed by ComfyUI's module and by diffusers on the same weights."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.ops
from comfy.cldm.dit_embedder import ControlNetEmbedder
from comfy.cldm.mmdit import ControlNet
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.utils import MMDIT_MAP_BASIC, mmdit_to_diffusers
from diffusers import SD3Transformer2DModel

import tiny_models as tiny

DEPTH, BLOCKS, TEXT, POOLED, SIDE = 2, 3, 48, 32, 8
WIDTH = 64 * DEPTH
VARIANTS = {"sd3_medium": dict(qk_norm=None, dual=[]), "sd3_large": dict(qk_norm="rms", dual=[]),
            "sd3_dual": dict(qk_norm="rms", dual=[0, 1])}


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def comfy_model(qk_norm, dual):
    model = MMDiT(input_size=None, patch_size=2, in_channels=16, depth=DEPTH, num_blocks=BLOCKS, adm_in_channels=POOLED,
                  context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": WIDTH}},
                  num_patches=SIDE * SIDE, pos_embed_max_size=SIDE, qk_norm=qk_norm, x_block_self_attn_layers=dual,
                  operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    model.load_state_dict({k: tiny.weight(k, list(v.shape)) for k, v in model.state_dict().items()})
    return model.eval()


def diffusers_model(state, qk_norm, dual):
    model = SD3Transformer2DModel(
        sample_size=SIDE * 2, patch_size=2, in_channels=16, num_layers=BLOCKS, attention_head_dim=64,
        num_attention_heads=DEPTH, joint_attention_dim=TEXT, caption_projection_dim=WIDTH, pooled_projection_dim=POOLED,
        out_channels=16, pos_embed_max_size=SIDE, dual_attention_layers=tuple(dual),
        qk_norm="rms_norm" if qk_norm else None)
    theirs = {}
    last = f"transformer_blocks.{BLOCKS - 1}.norm1_context.linear."
    for name, target in mmdit_to_diffusers({"depth": DEPTH, "num_blocks": BLOCKS}).items():
        target = target if isinstance(target, tuple) else (target, None)
        if target[0] not in state:
            continue
        value = state[target[0]]
        if target[1]:
            value = value.narrow(*target[1])
        if name.startswith(last) or name.startswith("norm_out.linear."):
            shift, scale = value.chunk(2)
            value = torch.cat([scale, shift])
        theirs[name] = value
    wanted = model.state_dict()
    theirs = {k: v for k, v in theirs.items() if k in wanted}
    missing, unexpected = model.load_state_dict(theirs, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model.eval()


def dump(name, qk_norm, dual):
    ours = comfy_model(qk_norm, dual)
    state = ours.state_dict()
    theirs = diffusers_model(state, qk_norm, dual)
    tensors = {}
    with torch.no_grad():
        for case, (h, w), tokens, seed in (("main", (8, 6), 7, 1), ("odd", (7, 5), 3, 2), ("full", (16, 16), 2, 3)):
            x, context, y = seeded((2, 16, h, w), seed), seeded((2, tokens, TEXT), seed + 10), seeded((2, POOLED), seed + 20)
            t = torch.tensor([731.5, 12.25])
            out = ours(x.clone(), t, y=y.clone(), context=context.clone())
            if case != "odd":
                other = theirs(x, encoder_hidden_states=context, pooled_projections=y, timestep=t).sample
                error = float((out - other).abs().max() / out.abs().max())
                print(name, case, f"diffusers {error:.1e}")
                assert error < 2e-5
            tensors.update({f"{case}/x": x, f"{case}/context": context, f"{case}/vector": y, f"{case}/timestep": t,
                            f"{case}/out": out})
        skipped = {"patches_replace": {"dit": {("double_block", 1): lambda args, extra: args}}}
        control = {"output": [seeded((2, 12, WIDTH), 30), seeded((2, 12, WIDTH), 31)]}
        tensors["main/controlled"] = ours(tensors["main/x"].clone(), tensors["main/timestep"], y=tensors["main/vector"],
                                          context=tensors["main/context"].clone(), control=control)
        tensors.update({"main/control.0": control["output"][0], "main/control.1": control["output"][1]})
        tensors["main/skipped"] = ours(tensors["main/x"].clone(), tensors["main/timestep"], y=tensors["main/vector"],
                                       context=tensors["main/context"].clone(), transformer_options=skipped)
    shapes = {k: list(v.shape) for k, v in state.items()}
    comfy_env.save(name, tensors, tiny.manifest(shapes))


def dump_control():
    """InstantX's ControlNet: a model four blocks deep, of which two are copied."""
    depth, blocks, width = 4, 2, 256
    model = ControlNet(num_blocks=blocks, control_latent_channels=17, input_size=None, patch_size=2, in_channels=16, depth=depth,
                       adm_in_channels=POOLED, num_patches=SIDE * SIDE, pos_embed_max_size=SIDE,
                       context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": width}},
                       operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    model.load_state_dict({k: tiny.weight(k, list(v.shape)) for k, v in model.state_dict().items()})
    x, context, y, t = seeded((2, 16, 7, 6), 1), seeded((2, 5, TEXT), 2), seeded((2, POOLED), 3), torch.tensor([731.5, 12.25])
    latent, mask = seeded((1, 16, 7, 6), 4), (seeded((1, 1, 7, 6), 5) > 0).float()
    with torch.no_grad():
        out = model.eval()(x.clone(), t, y=y, context=context.clone(), hint=torch.cat([latent * 1.5305, mask], 1))["output"]
    tensors = {"x": x, "context": context, "timestep": t, "latent": latent, "mask": mask}
    comfy_env.save("sd3_control", {**tensors, **{f"out.{i}": o for i, o in enumerate(out)}},
                   tiny.manifest({k: list(v.shape) for k, v in model.state_dict().items()}))


def large_control():
    """Stability's ControlNet for the tiny models, and its tensors as its files name them."""
    model = ControlNetEmbedder(img_size=None, patch_size=2, in_chans=16, num_layers=1, main_model_double=DEPTH, double_y_emb=True,
                               attention_head_dim=64, num_attention_heads=DEPTH, adm_in_channels=POOLED, device=None,
                               dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    theirs = {pair[0]: pair[1] for pair in MMDIT_MAP_BASIC}
    names = {k: theirs.get(k, k) for k in model.state_dict() if not k.startswith("orig_y_embedder.")}
    state = {k: tiny.weight(names[k], list(model.state_dict()[k].shape)) for k in names}
    model.load_state_dict(state, strict=False)
    return model.eval(), {names[k]: v for k, v in state.items()}


def instant_control(channels):
    """InstantX's ControlNet for the tiny models."""
    model = ControlNet(num_blocks=1, control_latent_channels=channels, input_size=None, patch_size=2, in_channels=16, depth=DEPTH,
                       adm_in_channels=POOLED, num_patches=SIDE * SIDE, pos_embed_max_size=SIDE,
                       context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": WIDTH}},
                       operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    model.load_state_dict({k: tiny.weight(k, list(v.shape)) for k, v in model.state_dict().items()})
    return model.eval()


def dump_tiny_controls():
    comfy_env.save("sd3_control_large", None, {"tensors": {k: list(v.shape) for k, v in large_control()[1].items()}, "first_values": {}})
    for channels in (16, 17):
        shapes = {k: list(v.shape) for k, v in instant_control(channels).state_dict().items()}
        comfy_env.save(f"sd3_control_{channels}", None, {"tensors": shapes, "first_values": {}})


if __name__ == "__main__":
    for variant, settings in VARIANTS.items():
        dump(variant, **settings)
    dump_control()
    dump_tiny_controls()
