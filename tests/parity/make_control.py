"""control_*.*, adapter_*.*: tiny ControlNets and T2I-adapters, run by diffusers and by ComfyUI's modules."""
import torch
from diffusers import ControlNetModel, T2IAdapter

import comfy_env
import tiny_models as tiny

comfy_env.import_comfy()
import comfy.cldm.cldm as cldm
import comfy.ops
import comfy.t2i_adapter.adapter as adapters


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hint_of(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def shapes_of(module):
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def fill(module, shapes, rename=lambda name: name):
    module.load_state_dict({rename(k): tiny.weight(k, s) for k, s in shapes.items()})
    return module.eval()


def save(file, tensors, shapes, **facts):
    for name, value in tensors.items():
        assert torch.isfinite(value).all(), name
    print(file, {k: tuple(v.shape) for k, v in list(tensors.items())[-3:]},
          "bytes", sum(v.numel() * 4 for v in tensors.values()))
    comfy_env.save(file, {k: v.contiguous() for k, v in tensors.items()}, {**facts, **tiny.manifest(shapes)})


def inputs_of(latent, tokens, context, vector=0, hint_channels=3):
    b, _, h, w = latent
    inputs = {"x": seeded(latent, 1), "timesteps": torch.tensor([999.0, 42.0][:b]),
              "context": seeded([b, tokens, context], 2), "hint": hint_of([b, hint_channels, h * 8, w * 8], 3)}
    if vector:
        inputs["vector"] = seeded([b, vector], 4)
    return inputs


def original_control(**changes):
    """ComfyUI's module of SD 1.x, 32 channels wide."""
    config = dict(image_size=32, in_channels=4, model_channels=32, hint_channels=3, num_res_blocks=[2, 2, 2, 2],
                  channel_mult=(1, 2, 4, 4), num_heads=8, use_spatial_transformer=True,
                  transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1, context_dim=64,
                  dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    return cldm.ControlNet(**{**config, **changes})


def run_original(model, inputs, **extra):
    with torch.no_grad():
        out = model(x=inputs["x"], hint=inputs["hint"], timesteps=inputs["timesteps"], context=inputs["context"],
                    y=inputs.get("vector"), **extra)
    return {f"out/{i}": r for i, r in enumerate(out["output"] + out["middle"])}


def dump_sd1():
    model = original_control()
    shapes = {"control_model." + k: s for k, s in shapes_of(model).items()}
    fill(model, shapes, lambda name: name.split("control_model.")[1])
    inputs = inputs_of([2, 4, 6, 9], 7, 64)
    save("control_sd1", {**inputs, **run_original(model, inputs)}, shapes)


def dump_diffusers(file, latent, context, time_ids=None, **config):
    model = ControlNetModel(conditioning_embedding_out_channels=(16, 32, 96, 256), layers_per_block=2,
                            cross_attention_dim=context, use_linear_projection=True, **config)
    fill(model, shapes_of(model))
    inputs, extra = inputs_of(latent, 5, context), {}
    if time_ids is not None:
        seen = {}
        model.add_embedding.register_forward_hook(lambda m, args, out: seen.update(vector=args[0]))
        extra["added_cond_kwargs"] = {"text_embeds": seeded([latent[0], 24], 5), "time_ids": time_ids}
    with torch.no_grad():
        down, middle = model(inputs["x"], inputs["timesteps"], inputs["context"], inputs["hint"],
                             return_dict=False, **extra)
    if time_ids is not None:
        inputs["vector"] = seen["vector"]
    save(file, {**inputs, **{f"out/{i}": r for i, r in enumerate([*down, middle])}}, shapes_of(model))


def dump_union():
    model = original_control(model_channels=320, num_res_blocks=[1, 1], channel_mult=(1, 1), num_heads=-1,
                             num_head_channels=64, transformer_depth=[0, 1], use_linear_in_transformer=True,
                             num_classes="sequential", adm_in_channels=48, union_controlnet_num_control_type=6)
    shapes = {k.replace("attn.in_proj.", "attn.in_proj_"): s for k, s in shapes_of(model).items()}
    fill(model, shapes, lambda name: name.replace("attn.in_proj_", "attn.in_proj."))
    inputs = inputs_of([1, 4, 4, 5], 6, 64, vector=48)
    out = {}
    for name, kind in (("auto", []), ("depth", [1]), ("segment", [5])):
        out.update({f"{name}/{k}": v for k, v in run_original(model, inputs, control_type=kind).items()})
    save("control_union", {**inputs, **out}, shapes)


def dump_adapter(file, model, hint):
    shapes = shapes_of(model)
    fill(model, shapes)
    with torch.no_grad():
        if isinstance(model, T2IAdapter):
            features = model(hint)
        else:
            out = model(hint)
            features = [f for f in out["input"][::-1] + out.get("middle", []) if f is not None]
            index = [i for i, f in enumerate(out["input"][::-1]) if f is not None]
            print(file, "places", index, "middle" in out)
    save(file, {"hint": hint, **{f"out/{i}": f for i, f in enumerate(features)}}, shapes)


def low_rank_shapes(rank=3):
    """A control LoRA of the tiny SD 1.x: factors of some matrices and convolutions, whole norms, biases and own parts."""
    shapes = {"lora_controlnet": [1]}
    for name, shape in shapes_of(original_control()).items():
        own = name.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
        if own or len(shape) == 1:
            shapes[name] = shape
        elif "attn1.to_q" not in name:  # some weights stay the UNet's
            base = name[:-len(".weight")]
            shapes[base + ".up"] = [shape[0], rank] + [1] * (len(shape) - 2)
            shapes[base + ".down"] = [rank, *shape[1:]]
    return shapes


if __name__ == "__main__":
    dump_sd1()
    dump_diffusers("control_sd2", [1, 4, 5, 4], 128, block_out_channels=(64, 64, 128, 128),
                   attention_head_dim=[1, 1, 2, 2])
    dump_diffusers("control_xl", [2, 4, 4, 6], 96, block_out_channels=(64, 128, 128), attention_head_dim=[1, 2, 2],
                   transformer_layers_per_block=[1, 2, 3], down_block_types=(
                       "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                   addition_embed_type="text_time", addition_time_embed_dim=8,
                   projection_class_embeddings_input_dim=24 + 6 * 8,
                   time_ids=torch.tensor([[64.0, 48, 0, 8, 64, 48], [32.0, 32, 4, 0, 64, 64]]))
    dump_union()
    narrow = [32, 64, 128, 128]
    dump_adapter("adapter_sd1", adapters.Adapter(channels=narrow, nums_rb=2, cin=64, ksize=3, sk=True, use_conv=True,
                                                 xl=False), hint_of([1, 1, 48, 40], 6))
    dump_adapter("adapter_xl", T2IAdapter(in_channels=3, channels=narrow, num_res_blocks=2, downscale_factor=16,
                                          adapter_type="full_adapter_xl"), hint_of([2, 3, 64, 64], 7))
    dump_adapter("adapter_light", adapters.Adapter_light(channels=narrow, nums_rb=4, cin=192),
                 hint_of([1, 3, 56, 72], 8))
    comfy_env.save("control_low_rank", None, tiny.manifest(low_rank_shapes()))
