"""nodes_xlabs.*, xlabs_*.json: runs of XLabs' sampler on the tiny FLUX.1 with its ControlNet, LoRA and IP-Adapter, by the pack's own code on
the CPU in float32.

    COMFYUI_DIR=... (0.3.64) XFLUX_DIR=... python tests/parity/make_nodes_xlabs.py

XFLUX_DIR is a checkout of XLabs-AI/x-flux-comfyui (0032855). The pack knows models by the sizes of the published ones: its classes are made
of the tiny sizes here, and compute in float32 where they ask for bfloat16. Two things are put right on the way: a ControlNet outside of its
steps says nothing (the pack goes on with what it said last), and a LoRA's part of the text's projection lies where it was trained, before
the MLP (the node of the pack adds it behind).
"""
import builtins
import importlib
import json
import os
import sys
import tempfile
import types

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import comfy.controlnet  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.supported_models as supported  # noqa: E402
import folder_paths  # noqa: E402
import nodes  # noqa: E402
import safetensors.torch  # noqa: E402
from comfy.ldm.flux.controlnet import ControlNetFlux  # noqa: E402
from comfy_extras import nodes_flux  # noqa: E402

import tiny_models as tiny  # noqa: E402

CPU = torch.device("cpu")
HIDDEN, HEADS, DEPTH, TOKEN, EMBEDDING, TOKENS = 64, 2, 2, 32, 20, 3
FLUX = dict(image_model="flux", vec_in_dim=20, context_in_dim=24, hidden_size=HIDDEN, mlp_ratio=4.0, num_heads=HEADS, depth=DEPTH,
            depth_single_blocks=2, axes_dim=[4, 14, 14], theta=10000, patch_size=2, qkv_bias=True, out_channels=16, in_channels=16,
            guidance_embed=True)
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16, "intermediate_size": 96, "patch_size": 56, "image_size": 224,
          "projection_dim": EMBEDDING}


class Float32:
    """torch, where bfloat16 is float32 and the GPU knows it."""

    bfloat16 = torch.float32
    cuda = types.SimpleNamespace(is_bf16_supported=lambda: True)

    def __getattr__(self, name):
        return getattr(torch, name)


class Controls:
    """A network of the pack that counts between two steps and says nothing elsewhere."""

    step = 0

    def __init__(self, controlnet, controlnet_cond, controlnet_gs, first, last):
        self.controlnet, self.controlnet_cond, self.strength, self.first, self.last = controlnet, controlnet_cond, controlnet_gs, first, last
        self.controlnet_start_step, self.controlnet_end_step = 0, 10**9

    @property
    def controlnet_gs(self):
        return self.strength if self.first <= Controls.step <= self.last else 0.0


def pack(folder):
    folder_paths.models_dir = folder
    package = types.ModuleType("xflux_pack")
    package.__path__ = [os.environ["XFLUX_DIR"]]
    sys.modules["xflux_pack"] = package
    theirs = importlib.import_module("xflux_pack.nodes")
    util = importlib.import_module("xflux_pack.xflux.src.flux.util")
    util.configs["flux-dev"].params = util.FluxParams(
        in_channels=64, vec_in_dim=20, context_in_dim=24, hidden_size=HIDDEN, mlp_ratio=4.0, num_heads=HEADS, depth=DEPTH,
        depth_single_blocks=2, axes_dim=[4, 14, 14], theta=10000, qkv_bias=True, guidance_embed=True)
    clip = importlib.import_module("xflux_pack.clip")
    clip.json_config["vision_config"].update(VISION)
    clip.json_config["projection_dim"] = EMBEDDING
    theirs.torch = Float32()
    theirs.ControlNetContainer = Controls
    theirs.range = lambda count: builtins.range(DEPTH if count == 19 else count)
    lora, prompt, project = theirs.DoubleStreamBlockLoraProcessor, theirs.IPProcessor, theirs.ImageProjModel
    theirs.DoubleStreamBlockLoraProcessor = lambda dim, rank, lora_weight: lora(HIDDEN, rank=rank, lora_weight=lora_weight)
    theirs.IPProcessor = lambda width, hidden, *more: prompt(TOKEN, HIDDEN, *more)
    theirs.ImageProjModel = lambda width, embedding, tokens: project(TOKEN, EMBEDDING, TOKENS)
    theirs.latent_preview = types.SimpleNamespace(prepare_callback=count_steps)
    return theirs


def count_steps(model, steps, x0_output):
    Controls.step = 0

    def callback(step, **more):
        Controls.step = step + 1

    return callback


def flux_shapes():
    with open(os.path.join(comfy_env.HERE, "flux_dev.json"), encoding="utf-8") as f:
        return json.load(f)["tensors"]


def load_flux(unet_name, weight_dtype):
    config = supported.Flux(dict(FLUX))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    values = {n.replace("_norm.weight", "_norm.scale"): tiny.weight(n, s) for n, s in flux_shapes().items()}
    model.diffusion_model.load_state_dict(values)
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


def load_plain_control(control_net_name):
    """The same network as ComfyUI's own ControlNet."""
    settings = {k: v for k, v in FLUX.items() if k != "image_model"}
    model = ControlNetFlux(operations=comfy.ops.disable_weight_init, dtype=torch.float32, device="cpu", **dict(settings, depth_single_blocks=0))
    state = safetensors.torch.load_file(os.path.join(folder_paths.models_dir, "xlabs", "controlnets", "xlabs_control.safetensors"))
    model.load_state_dict(state)
    return comfy.controlnet.ControlNet(model.eval(), load_device=CPU, extra_conds=["y", "guidance"])


def conditioning(name, tokens):
    return [[tiny.weight(name, [1, tokens, 24]), {"pooled_output": tiny.weight(name + " pooled", [1, 20])}]]


def latent(name, batch, channels, height, width):
    return {"samples": tiny.weight(name, [batch, channels, height, width]) * (1.0 if name else 0.0)}


def picture(name, batch, height, width):
    values = tiny.weight(name, [batch * height * width * 3]).view(batch, height, width, 3)
    return ((values * 4 + 0.5).clamp(0, 1) * 255).round() / 255


def files(theirs, folder):
    """The tiny files of the pack, and their shapes as dumps (norms end in "weight")."""
    def write(kind, name, shapes):
        shapes = {n.replace("_norm.scale", "_norm.weight"): s for n, s in shapes.items()}
        values = {n: tiny.weight(n, s) for n, s in shapes.items()}
        path = os.path.join(folder, kind)
        os.makedirs(path, exist_ok=True)
        named = {n.replace("_norm.weight", "_norm.scale"): v for n, v in values.items()}
        safetensors.torch.save_file(named, os.path.join(path, name + ".safetensors"))
        probe = sorted(shapes)[:3]
        comfy_env.save(name, None, {"tensors": shapes, "first_values": {n: values[n].flatten()[:4].tolist() for n in probe}})

    control = theirs.load_controlnet("flux-dev", CPU)
    write("xlabs/controlnets", "xlabs_control", {n: list(v.shape) for n, v in control.state_dict().items()})
    lora = {}
    for block in range(DEPTH):
        for stream in (1, 2):
            for layer, out in (("qkv", 3 * HIDDEN), ("proj", HIDDEN)):
                lora[f"double_blocks.{block}.processor.{layer}_lora{stream}.down.weight"] = [4, HIDDEN]
                lora[f"double_blocks.{block}.processor.{layer}_lora{stream}.up.weight"] = [out, 4]
    write("xlabs/loras", "xlabs_lora", lora)
    adapter = {"ip_adapter_proj_model.proj.weight": [TOKENS * TOKEN, EMBEDDING], "ip_adapter_proj_model.proj.bias": [TOKENS * TOKEN],
               "ip_adapter_proj_model.norm.weight": [TOKEN], "ip_adapter_proj_model.norm.bias": [TOKEN]}
    for block in range(DEPTH):
        for kind in "kv":
            name = f"double_blocks.{block}.processor.ip_adapter_double_stream_{kind}_proj"
            adapter |= {name + ".weight": [HIDDEN, TOKEN], name + ".bias": [HIDDEN]}
    write("xlabs/ipadapters", "xlabs_adapter", adapter)
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))
    write("clip_vision", "xlabs_vision", {n: list(v.shape) for n, v in encoder.state_dict().items() if "position_ids" not in n})
    folder_paths.folder_names_and_paths["clip_vision"] = ([os.path.join(folder, "clip_vision")], {".safetensors"})


class Graph:
    def __init__(self):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name="tiny_flux_dev.safetensors", weight_dtype="default")

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name="cat", tokens=7):
        return self.add("TinyConditioning", name=name, tokens=tokens)

    def latent(self, name="", channels=4, height=6, width=8, batch=1):
        return self.add("TinyLatent", name=name, batch=batch, channels=channels, height=height, width=width)

    def sample(self, model=None, positive=None, start=None, **more):
        inputs = {"noise_seed": 5, "steps": 4, "timestep_to_start_cfg": 20, "true_gs": 3.0, "image_to_image_strength": 0.0,
                  "denoise_strength": 1.0, **more}
        return self.add("XlabsSampler", model=model or self.model, conditioning=positive or self.text(), neg_conditioning=self.text("dog", 5),
                        latent_image=start or self.latent(), **inputs)

    def control(self, name="edges", strength=0.8, height=40, width=52, window=None, before=None):
        net = self.add("LoadFluxControlNet", model_name="flux-dev", controlnet_path="xlabs_control.safetensors")
        inputs = dict(controlnet=net, image=self.picture(name, height, width), strength=strength)
        if before:
            inputs["controlnet_condition"] = before
        if window:
            return self.add("ApplyAdvancedFluxControlNet", start=window[0], end=window[1], **inputs)
        return self.add("ApplyFluxControlNet", **inputs)

    def picture(self, name, height, width, batch=1):
        return self.add("TinyPicture", name=name, batch=batch, height=height, width=width)

    def lora(self, strength, model=None):
        return self.add("FluxLoraLoader", model=model or self.model, lora_name="xlabs_lora.safetensors", strength_model=strength)

    def adapter(self):
        return self.add("LoadFluxIPAdapter", ipadatper="xlabs_adapter.safetensors", clip_vision="xlabs_vision.safetensors", provider="CPU")


def cases():
    g = Graph()
    yield "plain", g, g.sample(positive=g.add("FluxGuidance", conditioning=g.text(), guidance=2.5))
    g = Graph()
    yield "cfg", g, g.sample(start=g.latent("", 4, 7, 9, batch=2), timestep_to_start_cfg=2)
    g = Graph()
    yield "picture", g, g.sample(start=g.latent("start", 16, batch=2), image_to_image_strength=0.6, timestep_to_start_cfg=1)
    g = Graph()
    yield "picture_back", g, g.sample(start=g.latent("start", 16))
    g = Graph()
    yield "part", g, g.sample(denoise_strength=0.7, timestep_to_start_cfg=0)
    g = Graph()
    yield "picture_part", g, g.sample(start=g.latent("start", 16), denoise_strength=0.85, image_to_image_strength=0.7)
    g = Graph()
    yield "control", g, g.sample(controlnet_condition=g.control(), timestep_to_start_cfg=2)
    g = Graph()
    two = g.control("lines", 1.4, 64, 48, window=(0.25, 0.7), before=g.control(window=(0.0, 0.3)))
    yield "controls", g, g.sample(controlnet_condition=two, timestep_to_start_cfg=1, steps=5)
    g = Graph()
    yield "control_picture", g, g.sample(controlnet_condition=g.control(height=48, width=64), start=g.latent("start", 16),
                                         image_to_image_strength=0.7)
    g = Graph()
    yield "lora", g, g.sample(model=g.lora(-0.7), timestep_to_start_cfg=1)
    g = Graph()
    one = g.add("ApplyFluxIPAdapter", model=g.model, ip_adapter_flux=g.adapter(), image=g.picture("cats", 90, 61), ip_scale=0.93)
    yield "adapter", g, g.sample(model=one, timestep_to_start_cfg=0)
    g = Graph()
    one = g.add("ApplyFluxIPAdapter", model=g.model, ip_adapter_flux=g.adapter(), image=g.picture("cats", 260, 300, 2), ip_scale=0.6)
    yield "adapter_two", g, g.sample(model=one, controlnet_condition=g.control(), timestep_to_start_cfg=2)
    # The ramps over a half of the blocks divide by 0 where that is one block: image_prompt_test.cpp has their numbers.
    for kind in ("Linear", "Sigmoid"):
        g = Graph()
        one = g.add("ApplyAdvancedFluxIPAdapter", model=g.model, ip_adapter_flux=g.adapter(), image=g.picture("cats", 230, 226, 2),
                    begin_strength=0.2, end_strength=1.7, smothing_type=kind)
        yield "adapter_" + kind.lower(), g, g.sample(model=one, timestep_to_start_cfg=1)
    g = Graph()
    net = g.add("ControlNetLoader", control_net_name="xlabs_control.safetensors")
    applied = g.add("ControlNetApplyAdvanced", positive=g.text(), negative=g.text("dog", 7), control_net=net, image=g.picture("edges", 40, 52),
                    strength=0.9, start_percent=0.0, end_percent=0.8)
    yield "plain_control", g, g.add("KSampler", model=g.model, positive=applied, negative=[applied[0], 1], latent_image=g.latent("", 16, 6, 8, 2),
                                    seed=5, steps=4, cfg=2.5, sampler_name="euler", scheduler="simple", denoise=1.0)


def main():
    folder = tempfile.mkdtemp()
    theirs = pack(folder)
    files(theirs, folder)
    classes = {**nodes.NODE_CLASS_MAPPINGS, **theirs.NODE_CLASS_MAPPINGS, "FluxGuidance": nodes_flux.FluxGuidance}
    made = {"UNETLoader": load_flux, "ControlNetLoader": load_plain_control, "TinyConditioning": conditioning, "TinyLatent": latent,
            "TinyPicture": picture}
    merge = theirs.merge_loras
    tensors, described = {}, []
    for name, g, out in cases():
        if name == "lora":
            # The processor of one LoRA as it was trained, in place of the node's own mixer.
            keeper, trained = theirs.DoubleStreamMixerProcessor, {}
            theirs.DoubleStreamMixerProcessor = type("Kept", (), {"add_lora": lambda self, lora: trained.__setitem__(id(self), lora)})
            theirs.merge_loras = lambda old, new: trained[id(new)]
        result = comfy_env.run(g.nodes, made, classes)(*out)["samples"]
        if name == "lora":
            theirs.DoubleStreamMixerProcessor, theirs.merge_loras = keeper, merge
        tensors[name] = result
        described.append({"name": name, "workflow": json.loads(json.dumps(g.nodes)), "latent": out})
        print(name, list(result.shape), float(result.std()))
    comfy_env.save("nodes_xlabs", tensors, {"cases": described})


if __name__ == "__main__":
    main()
