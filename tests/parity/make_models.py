"""unet_*.*, vae.*, clip_l.*, clip_h.*, clip_g.*: diffusers and transformers on the tiny models."""
import re

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import tiny_models as tiny
from comfy_env import save

torch.set_num_threads(1)


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def load(module, state):
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [m for m in missing if not m.endswith("position_ids")]
    assert not missing and not unexpected, (missing[:5], unexpected[:5])
    return module.eval()


def unet_state(shapes):
    """Original UNet names -> diffusers names."""
    res = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
           "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
    fixed = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
             "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
             "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
    state = {}
    for name, shape in shapes.items():
        short, tail = name.split("diffusion_model.")[1].rsplit(".", 1)
        if short in fixed:
            new = fixed[short]
        else:
            where, rest = re.match(r"(middle_block\.\d|\w+_blocks\.\d+\.\d)\.(.*)", short).groups()
            kind, *index = where.split(".")
            i = [int(x) for x in index]
            if kind == "middle_block":
                part = ["resnets.0", "attentions.0", "resnets.1"][i[0]]
                new = f"mid_block.{part}"
            elif kind == "input_blocks":
                level, j = divmod(i[0] - 1, 3)
                part = "downsamplers.0" if j == 2 else ["resnets", "attentions"][i[1]] + f".{j}"
                new = f"down_blocks.{level}.{part}"
            else:
                level, j = divmod(i[0], 3)
                part = "upsamplers.0" if rest == "conv" else ["resnets", "attentions"][i[1]] + f".{j}"
                new = f"up_blocks.{level}.{part}"
            new += "." + res.get(rest, "conv" if rest == "op" else rest)
        state[f"{new}.{tail}"] = tiny.weight(name, shape)
    return state


# Heights, widths, crops from the top and left, then target sizes (base) or an aesthetic score (refiner).
NUMBERS = {6: [[768, 512, 8, 16, 1024, 896], [1024, 1024, 0, 0, 640, 1152]], 5: [[768, 512, 8, 16, 6], [512, 1024, 0, 4, 2.5]]}


def unet_model(config, heads):
    c, mult = config["channels"], config["mult"]
    more, depth = {}, config.get("depth", (1, 1, 1, 0))
    if config.get("vector"):
        more = dict(addition_embed_type="text_time", addition_time_embed_dim=256,
                    projection_class_embeddings_input_dim=config["vector"],
                    transformer_layers_per_block=[d or config["middle"] for d in depth])
    down = ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depth]
    up = ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depth)]
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=[c * m for m in mult], layers_per_block=2,
        cross_attention_dim=config["context"], attention_head_dim=heads, down_block_types=down, up_block_types=up,
        use_linear_projection=config["linear_projection"], **more)


def dump_unet(file, config, heads):
    shapes = tiny.unet(**config)
    model = unet_model(config, heads)
    load(model, unet_state(shapes))
    seen = {}

    def keep(name):
        def hook(module, args, output):
            seen[name] = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        return hook

    model.conv_in.register_forward_hook(keep("input_blocks.0"))
    model.time_embedding.register_forward_hook(keep("time_embed"))
    model.mid_block.register_forward_hook(keep("middle_block"))
    for level, block in enumerate(model.down_blocks):
        parts = getattr(block, "attentions", None) or block.resnets
        for j in range(2):
            parts[j].register_forward_hook(keep(f"input_blocks.{1 + 3 * level + j}"))
        if block.downsamplers:
            block.downsamplers[0].register_forward_hook(keep(f"input_blocks.{3 + 3 * level}"))
    for level, block in enumerate(model.up_blocks):
        parts = getattr(block, "attentions", None) or block.resnets
        for j in range(3):
            last = block.upsamplers[0] if j == 2 and block.upsamplers else parts[j]
            last.register_forward_hook(keep(f"output_blocks.{3 * level + j}"))

    out = {}
    vector = config.get("vector", 0)
    cases = {"main": ([2, 4, 8, 16], 77, [999.0, 42.0]), "odd": ([1, 4, 10, 14], 77, [500.0]),
             "long": ([2, 4, 8, 8], 154, [0.0, 731.0])}
    if vector:
        cases["main"] = ([1, 4, 8, 8], 77, [999.0])
    for k, (name, (shape, tokens, timesteps)) in enumerate(cases.items()):
        x = seeded(shape, 100 + k)
        context = seeded([shape[0], tokens, config["context"]], 200 + k)
        t = torch.tensor(timesteps)
        added = None
        if vector:
            numbers = torch.tensor(NUMBERS[(vector - 1280) // 256])[:shape[0]]
            added = {"text_embeds": seeded([shape[0], 1280], 300 + k), "time_ids": numbers}
            out.update({f"{name}/pooled": added["text_embeds"], f"{name}/numbers": numbers.float()})
        with torch.no_grad():
            y = model(x, t, encoder_hidden_states=context, added_cond_kwargs=added).sample
        out.update({f"{name}/x": x, f"{name}/timesteps": t, f"{name}/context": context,
                    f"{name}/out": y})
        if name == "main":
            out.update({f"{name}/{k}": v for k, v in seen.items()})
        print(file, name, "std", float(y.std()), "max", float(y.abs().max()))
    save(file, out, {"config": config, "heads_per_level": heads, "cases": list(cases),
                     **tiny.manifest(shapes)})


def vae_state(shapes, levels=4, value=tiny.weight):
    """Original autoencoder names -> diffusers names."""
    rules = [(r"\.mid\.block_(\d)", lambda m: f".mid_block.resnets.{int(m[1]) - 1}"),
             (r"\.down\.(\d)\.block\.", r".down_blocks.\1.resnets."),
             (r"\.down\.(\d)\.downsample", r".down_blocks.\1.downsamplers.0"),
             (r"\.up\.(\d)\.block\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.resnets."),
             (r"\.up\.(\d)\.upsample", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.upsamplers.0"),
             (r"nin_shortcut", "conv_shortcut"), (r"norm_out", "conv_norm_out"),
             (r"\.mid\.attn_1\.norm", ".mid_block.attentions.0.group_norm"),
             (r"\.mid\.attn_1\.proj_out", ".mid_block.attentions.0.to_out.0"),
             (r"\.mid\.attn_1\.([qkv])", r".mid_block.attentions.0.to_\1")]
    state = {}
    for name, shape in shapes.items():
        tensor, new = value(name, shape), name.split("first_stage_model.")[1]
        for pattern, to in rules:
            new = re.sub(pattern, to, new)
        if ".attentions." in new and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        state[new] = tensor
    return state


def dump_vae():
    shapes = tiny.vae()
    model = AutoencoderKL(
        block_out_channels=[32, 64, 128, 128], layers_per_block=2, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
    load(model, vae_state(shapes))
    seen = {}

    def keep(name):
        def hook(module, args, output):
            seen[name] = output[0] if isinstance(output, tuple) else output
        return hook

    for level, block in enumerate(model.encoder.down_blocks):
        block.register_forward_hook(keep(f"encoder.down.{level}"))
    model.encoder.mid_block.register_forward_hook(keep("encoder.mid"))
    model.decoder.conv_in.register_forward_hook(keep("decoder.conv_in"))
    model.decoder.mid_block.register_forward_hook(keep("decoder.mid"))
    for level, block in enumerate(model.decoder.up_blocks):
        block.register_forward_hook(keep(f"decoder.up.{3 - level}"))
    z, image = seeded([2, 4, 3, 5], 301), seeded([2, 3, 24, 40], 302).clamp(-1, 1)
    with torch.no_grad():
        decoded = model.decode(z).sample
        moments = model.encode(image).latent_dist
    big = {k for k, v in seen.items() if v.numel() > 40000}
    out = {"z": z, "decoded": decoded, "image": image, "mean": moments.mean,
           "logvar": moments.logvar, **{k: v for k, v in seen.items() if k not in big}}
    print("vae decoded std", float(decoded.std()), "mean", float(moments.mean.std()),
          "logvar", float(moments.logvar.min()), float(moments.logvar.max()), "left out", big)
    save("vae", out, {"config": {"ch": 32, "mult": [1, 2, 4, 4], "z_channels": 4},
                      **tiny.manifest(shapes)})


IDS = [[49406, 736, 2368, 49407], [49406] + [320 + 601 * i for i in range(75)] + [49407],
       [49406, 49407]]


def dump_clip(file, shapes, state, width, activation, pad, projection=None):
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=width * 4, num_hidden_layers=3, projection_dim=projection or width,
        num_attention_heads=width // 64, hidden_act=activation, eos_token_id=49407,
        bos_token_id=49406, pad_token_id=pad, vocab_size=49408)
    model = load(CLIPTextModelWithProjection(config), state)
    ids = torch.tensor([row + [pad] * (77 - len(row)) for row in IDS])
    with torch.no_grad():
        r = model(input_ids=ids, output_hidden_states=True)
        norm = model.text_model.final_layer_norm
        # Pooled without the projection: the normed state at the first end token.
        first_end = (ids == 49407).int().argmax(-1)
        pooled = r.last_hidden_state[torch.arange(len(IDS)), first_end]
        out = {"ids": ids.int(), "last": r.last_hidden_state, "pooled": pooled,
               "penultimate": r.hidden_states[-2], "penultimate_normed": norm(r.hidden_states[-2])}
        for i, h in enumerate(r.hidden_states):
            out[f"layers.{i - 1}" if i else "embeddings"] = h[:2]
        if file != "clip_l":
            out["pooled_projected"] = r.text_embeds
    print(file, "std", float(r.last_hidden_state.std()))
    save(file, out, {"config": {"width": width, "layers": 3, "heads": width // 64,
                                "activation": activation, "pad": pad}, **tiny.manifest(shapes)})


def dump_clips():
    shapes = tiny.clip_l()
    state = {k.split("transformer.", 1)[1]: tiny.weight(k, s) for k, s in shapes.items()}
    state["text_projection.weight"] = torch.eye(64)
    dump_clip("clip_l", shapes, state, 64, "quick_gelu", 49407)

    shapes = tiny.clip_h()
    dump_clip("clip_h", shapes, open_clip_state(shapes, "cond_stage_model.model."), 128, "gelu", 0)
    shapes = tiny.refiner_text()
    dump_clip("clip_g", shapes, open_clip_state(shapes, "conditioner.embedders.0.model."), 64, "gelu", 0, 1280)
    save("text_sdxl", None, tiny.manifest(tiny.sdxl_texts()))  # names only: the same encoders together


def open_clip_state(shapes, prefix):
    """OpenCLIP names -> transformers names."""
    state = {}
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
             "mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj"}
    fixed = {"positional_embedding": "text_model.embeddings.position_embedding.weight",
             "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
             "ln_final.weight": "text_model.final_layer_norm.weight",
             "ln_final.bias": "text_model.final_layer_norm.bias"}
    for name, shape in shapes.items():
        value, short = tiny.weight(name, shape), name.split(prefix)[1]
        if short == "text_projection":
            state["text_projection.weight"] = value.T.contiguous()
        elif short in fixed:
            state[fixed[short]] = value
        else:
            layer, rest = re.match(r"transformer\.resblocks\.(\d+)\.(.*)", short).groups()
            base = f"text_model.encoder.layers.{layer}."
            if "in_proj" in rest:
                for p, v in zip("qkv", value.chunk(3)):
                    state[f"{base}self_attn.{p}_proj.{rest.split('_')[-1]}"] = v
            else:
                part, tail = rest.rsplit(".", 1)
                state[f"{base}{parts[part]}.{tail}"] = value
    return state


if __name__ == "__main__":
    dump_unet("unet_sd1", tiny.UNET_SD1, 8)
    dump_unet("unet_sd2", tiny.UNET_SD2, [1, 1, 2, 2])
    dump_unet("unet_sdxl", tiny.UNET_SDXL, [1, 2, 4])
    dump_unet("unet_refiner", tiny.UNET_REFINER, [1, 2, 2, 2])
    dump_vae()
    dump_clips()
