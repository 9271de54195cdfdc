"""nodes_qwen.*: whole workflows on the tiny Qwen-Image, run by ComfyUI's own nodes (0.33), and loras/qwen_*.

Loaders take the tiny models by name; TinyConditioning, TinyImage and TinyLatent (C++: tests/nodes/qwen_test.cpp) make seeded inputs.
"""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import comfy.controlnet  # noqa: E402
import comfy.lora  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models as supported  # noqa: E402
import nodes  # noqa: E402
import safetensors.torch  # noqa: E402
from comfy_extras import nodes_controlnet, nodes_model_patch  # noqa: E402

import make_qwen_control  # noqa: E402
import tiny_models as tiny  # noqa: E402

SIZES = dict(num_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 14, 14))
CPU = torch.device("cpu")


def weights(dump, prefix=""):
    with open(os.path.join(comfy_env.HERE, dump + ".json"), encoding="utf-8") as f:
        shapes = json.load(f)["tensors"]
    return {n[len(prefix):]: tiny.weight(n, s) for n, s in shapes.items() if n.startswith(prefix)}


def patcher(model):
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def load_model(state):
    config = supported.QwenImage({"image_model": "qwen_image", **SIZES})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    model.diffusion_model.load_state_dict(state)
    return patcher(model.eval())


def load_control(state):
    config = supported.QwenImage({"image_model": "qwen_image", **SIZES})
    extra = state["controlnet_x_embedder.weight"].shape[1] - 64
    from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel
    model = QwenImageControlNetModel(extra_condition_channels=extra, operations=comfy.ops.disable_weight_init, dtype=torch.float32,
                                     **config.unet_config)
    model.load_state_dict(state)
    return comfy.controlnet.ControlNet(model, compression_ratio=1, latent_format=comfy.latent_formats.Wan21(), concat_mask=extra > 0,
                                       load_device=CPU, manual_cast_dtype=torch.float32, extra_conds=[])


def load_fun_control():
    return comfy.controlnet.QwenFunControlNet(make_qwen_control.fun_control()[0], compression_ratio=1, latent_format=comfy.latent_formats.Wan21(),
                                              load_device=CPU, manual_cast_dtype=torch.float32, extra_conds=[])


def load_patch(state):
    model = nodes_model_patch.QwenImageBlockWiseControlNet(num_layers=2, additional_in_dim=state["img_in.weight"].shape[1] - 64, dim=64,
                                                           operations=comfy.ops.disable_weight_init)
    model.load_state_dict(state)
    return patcher(model.eval())


def conditioning(name, tokens, references, method):
    options = {}
    if references:
        sizes = [(4, 8), (8, 6), (5, 3)][:references]
        options["reference_latents"] = [tiny.weight(f"{name} {i}", [1, 16, 1, *s]) for i, s in enumerate(sizes)]
    if method:
        options["reference_latents_method"] = method
    return [[tiny.weight(name, [1, tokens, 48]), options]]


LOADERS = {
    "UNETLoader": lambda unet_name, weight_dtype: load_model(weights("qwen_image")),
    "VAELoader": lambda vae_name: comfy.sd.VAE(sd=weights("causal_vae"), dtype=torch.float32),
    "ControlNetLoader": lambda control_net_name: (load_fun_control() if "fun" in control_net_name else
                                                  load_control(weights(control_net_name.split(".")[0]))),
    "ModelPatchLoader": lambda name: load_patch(weights("qwen_patch", name.split("_")[2].split(".")[0] + ".")),
    "TinyConditioning": conditioning,
    "TinyImage": lambda name, height, width: torch.rand([1, height, width, 3], generator=torch.Generator().manual_seed(len(name))),
    "TinyMask": lambda height, width: (torch.arange(width) > width // 3).float().expand(1, height, width).contiguous(),
    "TinyLatent": lambda name, batch, height, width: {"samples": tiny.weight(name, [batch, 16, height, width]) * (1.0 if name else 0.0)},
}


def load_lora(model, lora_name, strength_model):
    lora = safetensors.torch.load_file(os.path.join(comfy_env.HERE, "loras", lora_name))
    return comfy.sd.load_lora_for_models(model, None, lora, strength_model, 0)[0]


LOADERS["LoraLoaderModelOnly"] = load_lora


NODES = {**nodes.NODE_CLASS_MAPPINGS, **nodes_model_patch.NODE_CLASS_MAPPINGS,
         "ControlNetInpaintingAliMamaApply": nodes_controlnet.ControlNetInpaintingAliMamaApply}


class Graph:
    def __init__(self):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name="tiny_qwen.safetensors", weight_dtype="default")
        self.vae = self.add("VAELoader", vae_name="tiny_causal.safetensors")

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name, tokens=9, references=0, method=""):
        return self.add("TinyConditioning", name=name, tokens=tokens, references=references, method=method)

    def image(self, name, height=64, width=96):
        return self.add("TinyImage", name=name, height=height, width=width)

    def latent(self, name="", batch=1):
        return self.add("TinyLatent", name=name, batch=batch, height=8, width=12)

    def sample(self, positive, negative, latent=None, model=None, **more):
        inputs = {"seed": 5, "steps": 4, "cfg": 2.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **more}
        return self.add("KSampler", model=model or self.model, positive=positive, negative=negative, latent_image=latent or self.latent(), **inputs)


def write_loras():
    """The same layers in the namings in circulation: PEFT with an adapter's name, plain, kohya."""
    layers = {"transformer_blocks.0.attn.to_q": (64, 64), "transformer_blocks.1.img_mlp.net.0.proj": (256, 64),
              "transformer_blocks.1.attn.to_add_out": (64, 64), "transformer_blocks.0.txt_mod.1": (384, 64)}
    peft, plain, kohya = {}, {}, {}
    for name, (out, into) in layers.items():
        down, up = tiny.weight(name + " down", [4, into]), tiny.weight(name + " up", [out, 4])
        peft[f"transformer.{name}.lora_A.default.weight"], peft[f"transformer.{name}.lora_B.default.weight"] = down, up
        plain[f"{name}.lora_down.weight"], plain[f"{name}.lora_up.weight"] = down, up
        plain[f"{name}.alpha"] = torch.tensor(2.0)
        key = "lora_unet_" + name.replace(".", "_")
        kohya[f"{key}.lora_down.weight"], kohya[f"{key}.lora_up.weight"], kohya[f"{key}.alpha"] = down, up, torch.tensor(8.0)
    for name, lora in (("peft", peft), ("plain", plain), ("kohya", kohya)):
        safetensors.torch.save_file(lora, os.path.join(comfy_env.HERE, "loras", f"qwen_{name}.safetensors"))


def cases():
    g = Graph()
    latent = g.sample(g.text("cat"), g.text("dog", 6))
    yield "text", g, {"latent": latent, "image": g.add("VAEDecode", samples=latent, vae=g.vae)}
    g = Graph()
    encoded = g.add("VAEEncode", pixels=g.image("photo", 70, 100), vae=g.vae)
    yield "image", g, {"encoded": encoded, "latent": g.sample(g.text("cat"), g.text("dog"), encoded, denoise=0.6, sampler_name="dpmpp_2m")}
    g = Graph()
    yield "batch", g, {"latent": g.sample(g.text("cat"), g.text("dog"), g.latent("start", 2), denoise=0.7)}
    for method in ("index", "offset", "index_timestep_zero", "negative_index"):
        g = Graph()
        yield "edit_" + method, g, {"latent": g.sample(g.text("cat", 9, 3, method), g.text("dog", 9, 2, method))}
    g = Graph()
    yield "edit_one_sided", g, {"latent": g.sample(g.text("cat", 9, 1), g.text("dog", 5))}
    g = Graph()
    net = g.add("ControlNetLoader", control_net_name="qwen_control.safetensors")
    steered = g.add("ControlNetApplyAdvanced", positive=g.text("cat"), negative=g.text("dog"), control_net=net, image=g.image("lines", 80, 120),
                    strength=0.7, start_percent=0.0, end_percent=0.6, vae=g.vae)
    yield "control", g, {"latent": g.sample(steered, [steered[0], 1])}
    g = Graph()
    net = g.add("ControlNetLoader", control_net_name="qwen_control_fun.safetensors")
    steered = g.add("ControlNetApplyAdvanced", positive=g.text("cat"), negative=g.text("dog"), control_net=net, image=g.image("lines", 80, 120),
                    strength=1.7, start_percent=0.0, end_percent=1.0, vae=g.vae)
    yield "control_fun", g, {"latent": g.sample(steered, [steered[0], 1])}
    g = Graph()
    net = g.add("ControlNetLoader", control_net_name="qwen_control_inpaint.safetensors")
    steered = g.add("ControlNetInpaintingAliMamaApply", positive=g.text("cat"), negative=g.text("dog"), control_net=net, vae=g.vae,
                    image=g.image("photo"), mask=g.add("TinyMask", height=64, width=96), strength=1.0, start_percent=0.0, end_percent=1.0)
    yield "control_inpaint", g, {"latent": g.sample(steered, [steered[0], 1])}
    g = Graph()
    model = g.add("QwenImageDiffsynthControlnet", model=g.model, model_patch=g.add("ModelPatchLoader", name="qwen_patch_plain.safetensors"),
                  vae=g.vae, image=g.image("lines", 80, 120), strength=0.8)
    yield "patch", g, {"latent": g.sample(g.text("cat"), g.text("dog", 7), model=model)}
    model = g.add("QwenImageDiffsynthControlnet", model=model, model_patch=g.add("ModelPatchLoader", name="qwen_patch_masked.safetensors"),
                  vae=g.vae, image=g.image("photo"), strength=1.2, mask=g.add("TinyMask", height=64, width=96))
    yield "patches", g, {"latent": g.sample(g.text("cat", 9, 1), g.text("dog", 9, 1), model=model)}
    for name in ("peft", "plain", "kohya"):
        g = Graph()
        model = g.add("LoraLoaderModelOnly", model=g.model, lora_name=f"qwen_{name}.safetensors", strength_model=0.9)
        yield "lora_" + name, g, {"latent": g.sample(g.text("cat"), g.text("dog"), model=model)}


def main():
    write_loras()
    out, described = {}, []
    for name, g, outputs in cases():
        value = comfy_env.run(g.nodes, LOADERS, NODES)
        entry = {"name": name, "workflow": dict(g.nodes), "outputs": {}}
        for key, reference in outputs.items():
            result = value(*reference)
            kind = "image" if key == "image" else "latent"
            out[f"{name}/{key}"] = result if kind == "image" else result["samples"]
            entry["outputs"][key] = {"node": reference, "kind": kind}
        described.append(entry)
        print(name, {k: (list(v.shape), float(v.std())) for k, v in out.items() if k.startswith(name + "/")})
    comfy_env.save("nodes_qwen", out, {"cases": described})


if __name__ == "__main__":
    main()
