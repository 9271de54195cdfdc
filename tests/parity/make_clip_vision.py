"""clip_vision.*, clip_vision_open.*, siglip.*, style_*.*, unclip.*: tiny picture encoders and what follows them, by ComfyUI's classes."""
import os
import types

import comfy_env

comfy_env.import_comfy()
import numpy as np
import torch
import transformers
from PIL import Image

import comfy.clip_model
import comfy.clip_vision
import comfy.ldm.flux.redux
import comfy.ldm.modules.encoders.noise_aug_modules as noise_aug
import comfy.model_base
import comfy.ops
import comfy.t2i_adapter.adapter
import tiny_models as tiny

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 16, "intermediate_size": 96, "patch_size": 7,
         "image_size": 28, "num_channels": 3}
CLIP = {**SIZES, "hidden_act": "quick_gelu", "model_type": "clip_vision_model", "projection_dim": 40}
OPEN = {**CLIP, "hidden_act": "gelu"}
SIGLIP = {**SIZES, "hidden_size": 48, "hidden_act": "gelu_pytorch_tanh", "model_type": "siglip_vision_model"}


def first_values(values):
    return {n: values[n].flatten()[:4].tolist() for n in sorted(values)[:3]}


def save(name, values, tensors):
    comfy_env.save(name, tensors, {"tensors": {n: list(t.shape) for n, t in values.items()}, "first_values": first_values(values)})


def photo():
    pixels = np.array(Image.open(os.path.join(comfy_env.HERE, "inputs", "photo.png")).convert("RGB"))
    return torch.from_numpy(pixels).float()[None] / 255


def encoder(name, config, theirs, rename=None):
    model = comfy.clip_model.CLIPVisionModelProjection(config, torch.float32, "cpu", comfy.ops.manual_cast).eval()
    shapes = {n: list(t.shape) for n, t in model.state_dict().items()}
    if rename is not None:  # from the names of another spelling, with their own seeds
        shapes = rename(shapes)
    values = tiny.weights(shapes)
    state = dict(values)
    if rename is not None:
        state = comfy.clip_vision.convert_to_transformers(state, "visual.")
    model.load_state_dict(state)
    siglip = config["model_type"] == "siglip_vision_model"
    tensors = {"photo": photo()} if name == "clip_vision" else {}
    with torch.no_grad():
        for crop in (True, False):
            mean_std = dict(mean=[0.5] * 3, std=[0.5] * 3) if siglip else {}
            tensors[f"pixels_{crop}"] = comfy.clip_vision.clip_preprocess(photo(), size=28, crop=crop, **mean_std)
        x = tensors["pixels_True"]
        last, penultimate, embeds, _ = model(pixel_values=x, intermediate_output=-2)
        tensors.update(last=last, penultimate=penultimate, embeds=embeds)
        theirs = theirs(**config, layer_norm_eps=1e-5)
        other = (transformers.SiglipVisionModel if siglip else transformers.CLIPVisionModelWithProjection)(theirs).eval()
        other.load_state_dict(state, strict=False)
        out = other(x, output_hidden_states=True)
        for mine, reference in ((last, out.last_hidden_state), (penultimate, out.hidden_states[-2])):
            assert (mine - reference).abs().max() < 1e-4
        if not siglip:
            assert (embeds - out.image_embeds).abs().max() < 1e-4
    save(name, values, tensors)


def open_clip(shapes):
    """The names that OpenCLIP has for the same model."""
    result = {"visual.proj": [64, 40]}
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}
    fixed = {"embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
             "embeddings.position_embedding.weight": "positional_embedding", "pre_layrnorm.weight": "ln_pre.weight",
             "pre_layrnorm.bias": "ln_pre.bias", "post_layernorm.weight": "ln_post.weight", "post_layernorm.bias": "ln_post.bias"}
    for name, shape in shapes.items():
        name = name.removeprefix("vision_model.")
        if name in fixed:
            result["visual." + fixed[name]] = shape
        if name.startswith("encoder.layers."):
            number, rest = name.removeprefix("encoder.layers.").split(".", 1)
            layer = f"visual.transformer.resblocks.{number}."
            part, end = rest.rsplit(".", 1)
            if part in parts:
                result[f"{layer}{parts[part]}.{end}"] = shape
            elif part == "self_attn.q_proj":
                result[f"{layer}attn.in_proj_{end}"] = [shape[0] * 3, *shape[1:]]
    return result


def style(name, model, width):
    values = tiny.weights({n: list(t.shape) for n, t in model.state_dict().items()})
    model.load_state_dict(values)
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        save(name, values, {"x": x, "out": model(x)})


def unclip():
    augment = noise_aug.CLIPEmbeddingNoiseAugmentation(
        noise_schedule_config={"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}, timestep_dim=64)
    embeds = torch.randn(2, 64, generator=torch.Generator().manual_seed(4))

    def picture(rows, strength, augmentation):
        return {"clip_vision_output": types.SimpleNamespace(image_embeds=rows), "strength": strength,
                "noise_augmentation": augmentation}

    tensors = {"embeds": embeds}
    for case, pictures in (("clean", [picture(embeds[:1], 1.0, 0.0)]), ("noisy", [picture(embeds[:1], 0.7, 0.4)]),
                           ("most", [picture(embeds[:1], -2.0, 1.0)]),
                           ("two", [picture(embeds[:1], 1.0, 0.1), picture(embeds[1:], 0.5, 0.6)]), ("batch", [picture(embeds, 1.0, 0.2)])):
        tensors[case] = comfy.model_base.unclip_adm(pictures, "cpu", augment, 0.05, 77)
    comfy_env.save("unclip", tensors, None)


if __name__ == "__main__":
    encoder("clip_vision", CLIP, transformers.CLIPVisionConfig)
    encoder("clip_vision_open", OPEN, transformers.CLIPVisionConfig, open_clip)
    encoder("siglip", SIGLIP, transformers.SiglipVisionConfig)
    style("style_redux", comfy.ldm.flux.redux.ReduxImageEncoder(48, 32), 48)
    style("style_adapter", comfy.t2i_adapter.adapter.StyleAdapter(width=64, context_dim=32, num_head=8, n_layes=3, num_token=8), 64)
    unclip()
