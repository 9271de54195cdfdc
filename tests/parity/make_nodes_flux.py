"""nodes_flux.*: whole workflows on the tiny FLUX models, run by ComfyUI's own nodes (0.33), and loras/flux_control.

UNETLoader takes the tiny models by name; the Tiny* nodes (C++: tests/nodes/flux_test.cpp) make seeded inputs.
"""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch

torch.use_deterministic_algorithms(False)

import comfy.lora_convert
import comfy.model_patcher
import comfy.sd
import comfy.supported_models as supported
import nodes
import safetensors.torch
from comfy.ldm.flux.redux import ReduxImageEncoder
from comfy_extras import nodes_edit_model, nodes_flux

import tiny_models as tiny

CPU = torch.device("cpu")
FIRST = dict(image_model="flux", vec_in_dim=20, context_in_dim=24, hidden_size=64, mlp_ratio=4.0, num_heads=2, depth=2,
             depth_single_blocks=2, axes_dim=[4, 14, 14], theta=10000, patch_size=2, qkv_bias=True, out_channels=16, in_channels=16,
             guidance_embed=True, txt_ids_dims=[])
SECOND = dict(FIRST, image_model="flux2", vec_in_dim=None, mlp_ratio=3.0, axes_dim=[8, 8, 8, 8], theta=2000, patch_size=1,
              out_channels=128, in_channels=128, qkv_bias=False, global_modulation=True, mlp_silu_act=True, ops_bias=False,
              default_ref_method="index", ref_index_scale=10.0, txt_ids_dims=[3], guidance_embed=False)
MODELS = {"flux_dev": (supported.Flux, FIRST), "flux_schnell": (supported.FluxSchnell, dict(FIRST, guidance_embed=False)),
          "flux_fill": (supported.FluxInpaint, dict(FIRST, in_channels=96)), "flux2_klein": (supported.Flux2, SECOND)}


def load_model(unet_name, weight_dtype):
    name = unet_name.split(".")[0].removeprefix("tiny_")
    kind, settings = MODELS[name]
    config = kind(dict(settings))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    with open(os.path.join(comfy_env.HERE, name + ".json"), encoding="utf-8") as f:
        shapes = json.load(f)["tensors"]
    model.diffusion_model.load_state_dict({n: tiny.weight(n, s) for n, s in shapes.items()})
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


def load_lora(model, lora_name, strength_model):
    lora = safetensors.torch.load_file(os.path.join(comfy_env.HERE, "loras", lora_name))
    return comfy.sd.load_lora_for_models(model, None, lora, strength_model, 0)[0]


def conditioning(name, tokens):
    return [[tiny.weight(name, [1, tokens, 24]), {"pooled_output": tiny.weight(name + " pooled", [1, 20])}]]


def concat(conditioning, name, height, width, mask):
    more = {"concat_latent_image": tiny.weight(name, [1, 16, height, width])}
    if mask:
        more["concat_mask"] = (tiny.weight(name + " mask", [1, 1, height * 8, width * 8]) > 0).float()
    return [[c, d | more] for c, d in conditioning]


def latent(name, batch, channels, height, width):
    return {"samples": tiny.weight(name, [batch, channels, height, width]) * (1.0 if name else 0.0)}


class Vision:
    """Of a CLIP_VISION_OUTPUT what style models look at."""

    def __init__(self, name):
        self.last_hidden_state = tiny.weight(name, [1, 4, 16])


def load_style(style_model_name):
    model = ReduxImageEncoder(redux_dim=16, txt_in_features=24, dtype=torch.float32)
    model.load_state_dict({n: tiny.weight(n, list(v.shape)) for n, v in model.state_dict().items()})
    return comfy.sd.StyleModel(model.eval())


TINY = {"StyleModelLoader": load_style, "TinyVision": Vision, "UNETLoader": load_model, "LoraLoaderModelOnly": load_lora, "TinyConditioning": conditioning, "TinyConcat": concat,
        "TinyLatent": latent}
NODES = dict(nodes.NODE_CLASS_MAPPINGS)
for module in (nodes_flux, nodes_edit_model):
    NODES |= {n: c for n, c in vars(module).items() if isinstance(c, type) and hasattr(c, "execute")}


class Graph:
    def __init__(self, model):
        self.nodes = {}
        self.channels = 128 if model.startswith("flux2") else 16
        self.model = self.add("UNETLoader", unet_name=f"tiny_{model}.safetensors", weight_dtype="default")

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name="cat", tokens=7):
        return self.add("TinyConditioning", name=name, tokens=tokens)

    def latent(self, name="", height=6, width=8, batch=1):
        return self.add("TinyLatent", name=name, batch=batch, channels=self.channels, height=height, width=width)

    def sample(self, positive, negative=None, model=None, start=None, **more):
        inputs = {"seed": 5, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **more}
        return self.add("KSampler", model=model or self.model, positive=positive, negative=negative or self.text("dog", 5),
                        latent_image=start or self.latent(), **inputs)


def cases():
    g = Graph("flux_dev")
    yield "guidance", g, g.sample(g.add("FluxGuidance", conditioning=g.text(), guidance=2.5))
    g = Graph("flux_dev")
    yield "no_guidance", g, g.sample(g.add("FluxDisableGuidance", conditioning=g.text()), start=g.latent("start", batch=2), denoise=0.6)
    g = Graph("flux_dev")
    yield "cfg", g, g.sample(g.text(), g.text("dog", 7), cfg=2.5, sampler_name="dpmpp_2m", scheduler="beta")
    g = Graph("flux_dev")
    one = g.add("ReferenceLatent", conditioning=g.text(), latent=g.latent("one", 4, 6))
    two = g.add("ReferenceLatent", conditioning=one, latent=g.latent("two", 7, 3))
    yield "references", g, g.sample(two, cfg=2.0)
    g.add("FluxKontextMultiReferenceLatentMethod", conditioning=two, reference_latents_method="uxo/uno")
    yield "references_uxo", g, g.sample([str(len(g.nodes)), 0])
    g = Graph("flux_schnell")
    yield "schnell", g, g.sample(g.text())
    g = Graph("flux_fill")
    yield "fill", g, g.sample(g.add("TinyConcat", conditioning=g.text(), name="picture", height=6, width=8, mask=True))
    g = Graph("flux_fill")
    yield "fill_without_mask", g, g.sample(g.add("TinyConcat", conditioning=g.text(), name="picture", height=8, width=6, mask=False))
    g = Graph("flux_dev")
    lora = g.add("LoraLoaderModelOnly", model=g.model, lora_name="flux_control.safetensors", strength_model=0.9)
    yield "control_lora", g, g.sample(g.add("TinyConcat", conditioning=g.text(), name="picture", height=6, width=8, mask=False),
                                      model=lora)
    def styled(g, conditioning, picture, strength, kind="attn_bias"):
        return g.add("StyleModelApply", conditioning=conditioning, clip_vision_output=g.add("TinyVision", name=picture), strength=strength,
                     style_model=g.add("StyleModelLoader", style_model_name="tiny_redux.safetensors"), strength_type=kind)

    g = Graph("flux_dev")
    yield "style_bias", g, g.sample(styled(g, g.text(), "photo", 0.3), start=g.latent("", 5, 8, batch=2))
    g = Graph("flux_dev")
    two = styled(g, styled(g, g.text(), "photo", 0.5), "other", 1.6)
    yield "style_chain", g, g.sample(styled(g, two, "third", 0.7, "multiply"), cfg=2.0)
    g = Graph("flux2_klein")
    yield "klein", g, g.sample(g.text(), start=g.latent("", 3, 4))
    one = g.add("ReferenceLatent", conditioning=g.text(), latent=g.latent("one", 2, 3))
    yield "klein_reference", g, g.sample(one, start=g.latent("", 3, 4))
    g = Graph("flux2_klein")
    two = g.add("ReferenceLatent", conditioning=g.add("ReferenceLatent", conditioning=g.text(), latent=g.latent("one", 2, 3)),
                latent=g.latent("two", 4, 2))
    yield "klein_kept", g, g.sample(two, start=g.latent("", 3, 4), model=g.add("FluxKVCache", model=g.model))


if __name__ == "__main__":
    control = safetensors.torch.load_file(os.path.join(comfy_env.HERE, "flux_loras.safetensors"))
    safetensors.torch.save_file({k[8:]: v for k, v in control.items() if k.startswith("control/")},
                                os.path.join(comfy_env.HERE, "loras", "flux_control.safetensors"))
    tensors, described = {}, []
    for name, g, out in cases():
        tensors[name] = comfy_env.run(g.nodes, TINY, NODES)(*out)["samples"]
        described.append({"name": name, "workflow": json.loads(json.dumps(g.nodes)), "latent": out})
        print(name, list(tensors[name].shape), float(tensors[name].std()))
    comfy_env.save("nodes_flux", tensors, {"cases": described})
