"""Runs API-format workflows in-process with ComfyUI's own node classes on the tiny models.

ComfyUI knows these models only at their real widths, so the narrow configurations are added to its list, and
CheckpointLoaderSimple of "tiny_sd1.safetensors" ("tiny_sd2", "tiny_sdxl", "tiny_sdxl_b", "tiny_refiner") builds the seeded weights.
"""
import importlib
import os

import comfy_env

comfy_env.import_comfy()
import torch
import comfy.clip_model
import comfy.model_management
import comfy.sd
import comfy.supported_models as supported
import folder_paths
import nodes

import tiny_models as tiny

folder_paths.set_input_directory(os.path.join(comfy_env.HERE, "inputs"))
for kind in ("embeddings", "loras"):
    folder_paths.add_model_folder_path(kind, os.path.join(comfy_env.HERE, kind), is_default=True)


class TinySD15(supported.SD15):
    unet_config = {**supported.SD15.unet_config, "context_dim": 64, "model_channels": 32}


class TinySD20(supported.SD20):
    unet_config = {**supported.SD20.unet_config, "context_dim": 128, "model_channels": 64}


class TinySDXL(supported.SDXL):
    unet_config = {**supported.SDXL.unet_config, "context_dim": 128, "model_channels": 64,
                   "transformer_depth": [0, 0, 2, 2, 3, 3]}


class TinyRefiner(supported.SDXLRefiner):
    unet_config = {**supported.SDXLRefiner.unet_config, "context_dim": 64, "model_channels": 64,
                   "transformer_depth": [0, 0, 2, 2, 2, 2, 0, 0]}


supported.models[:0] = [TinySD15, TinySD20, TinySDXL, TinyRefiner]

# Narrow encoders project to the real width: by it the second vector of a UNet is told.
_text_model = comfy.clip_model.CLIPTextModel.__init__


def text_model(self, config, dtype, device, operations):
    _text_model(self, config, dtype, device, operations)
    if "projection" in config:
        self.text_projection = operations.Linear(config["hidden_size"], config["projection"], bias=False,
                                                 dtype=dtype, device=device)


comfy.clip_model.CLIPTextModel.__init__ = text_model


def register(name):
    """Adds the nodes of comfy_extras/nodes_NAME.py to ComfyUI's list, older and newer ones."""
    module = importlib.import_module("comfy_extras.nodes_" + name)
    nodes.NODE_CLASS_MAPPINGS.update(getattr(module, "NODE_CLASS_MAPPINGS", {}))
    for value in vars(module).values():
        if isinstance(value, type) and "define_schema" in vars(value):
            nodes.NODE_CLASS_MAPPINGS[value.define_schema().node_id] = value


for extra in ("freelunch", "model_advanced", "model_merging", "custom_sampler", "clip_sdxl", "mask"):
    register(extra)

VAE_CONFIG = {"params": {"embed_dim": 4, "ddconfig": {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}}}


def text_config(width):
    return {"hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": width // 64,
            "intermediate_size": width * 4}


def other(shapes):
    """Another checkpoint of the same shapes."""
    return {name: tiny.weight("b." + name, shape) for name, shape in shapes.items()}


def checkpoint(name):
    """MODEL, CLIP, VAE of a tiny checkpoint, everything in float32."""
    g = {**text_config(64), "projection": 1280}
    shapes, texts = {
        "tiny_sd1": ({**tiny.unet(**tiny.UNET_SD1), **tiny.clip_l()}, {"clip_l": text_config(64)}),
        "tiny_sd2": ({**tiny.unet(**tiny.UNET_SD2), **tiny.clip_h()}, {"clip_h": text_config(128)}),
        "tiny_sdxl": ({**tiny.unet(**tiny.UNET_SDXL), **tiny.sdxl_texts()}, {"clip_l": text_config(64), "clip_g": g}),
        "tiny_refiner": ({**tiny.unet(**tiny.UNET_REFINER), **tiny.refiner_text()}, {"clip_g": g}),
    }[name.split(".")[0].removesuffix("_b")]
    options = {"dtype": torch.float32, **{f"{k}_model_config": v for k, v in texts.items()}}
    model, clip, _, _ = comfy.sd.load_state_dict_guess_config(
        other(shapes) if "_b." in name else tiny.weights(shapes), output_vae=False,
        embedding_directory=folder_paths.get_folder_paths("embeddings"), te_model_options=options)
    vae = {k.split("first_stage_model.")[1]: tiny.weight(k, s) for k, s in tiny.vae().items()}
    return model, clip, comfy.sd.VAE(sd=vae, config=VAE_CONFIG, dtype=torch.float32)


_checkpoints = {}


def nested(args):
    """Newer nodes take "values.a" as values={"a": ...}, and a choice with inputs of its own as {name: choice, input: ...}."""
    result = {}
    for key, value in args.items():
        root, _, name = key.partition(".")
        if name:
            if not isinstance(result.get(root), dict):
                result[root] = {root: result[root]} if root in result else {}
            result[root][name] = value
        else:
            result[key] = value
    return result


def run(workflow):
    """Evaluates an API-format workflow; returns a function (node id, slot) -> value."""
    results = {}

    def value(node_id, slot):
        if node_id not in results:
            node = workflow[node_id]
            args = nested({k: value(*v) if isinstance(v, list) else v for k, v in node["inputs"].items()})
            if node["class_type"] == "CheckpointLoaderSimple":
                name = args["ckpt_name"]
                if name not in _checkpoints:
                    _checkpoints[name] = checkpoint(name)
                results[node_id] = _checkpoints[name]
            else:
                cls = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
                with torch.inference_mode():
                    if hasattr(cls, "execute"):
                        results[node_id] = cls.execute(**args).args
                    else:
                        results[node_id] = getattr(cls(), cls.FUNCTION)(**args)
        return results[node_id][slot]

    return value


class Graph:
    """Writes an API-format workflow: g.add(class, **inputs) returns a reference to slot 0."""

    def __init__(self):
        self.nodes = {}

    def add(self, class_type, **inputs):
        key = str(len(self.nodes) + 1)
        self.nodes[key] = {"class_type": class_type, "inputs": inputs}
        return [key, 0]


def slot(reference, n):
    return [reference[0], n]


def check_against_dumps():
    """ComfyUI's modules agree with the diffusers / transformers dumps on the same weights."""
    import safetensors.torch
    load = lambda n: safetensors.torch.load_file(os.path.join(comfy_env.HERE, n + ".safetensors"))

    def close(what, mine, reference):
        error = float((mine - reference).abs().max() / reference.abs().max())
        print("check", what, f"{error:.1e}")
        assert error < 2e-5, what

    with torch.no_grad():
        for name in ("sd1", "sd2"):
            model, clip, vae = run({"1": {"class_type": "CheckpointLoaderSimple", "inputs": {
                "ckpt_name": f"tiny_{name}.safetensors"}}})("1", 0), None, None
            model, clip, vae = _checkpoints[f"tiny_{name}.safetensors"]
            print(name, model.model.model_type, model.model.get_dtype())
            d = load("unet_" + name)
            for case in ("main", "odd", "long"):
                y = model.model.diffusion_model(d[case + "/x"], d[case + "/timesteps"],
                                                context=d[case + "/context"])
                close(f"{name} unet {case}", y, d[case + "/out"])
            kind = "clip_l" if name == "sd1" else "clip_h"
            d = load(kind)
            te = getattr(clip.cond_stage_model, kind)
            hidden, pooled = te.encode(d["ids"].tolist())[:2]
            close(kind, hidden, d["last"] if name == "sd1" else d["penultimate_normed"])
            close(kind + " pooled", pooled, d["pooled"] if name == "sd1" else d["pooled_projected"])
        d = load("vae")
        close("vae decode", vae.first_stage_model.decode(d["z"]), d["decoded"])
        close("vae encode", vae.first_stage_model.encode(d["image"]), d["mean"])
