"""nodes_dit.*: whole workflows on the tiny MM-DiTs and Next-DiTs, run by ComfyUI's own nodes (0.33), and loras/{sd3,z_image}_*.

UNETLoader takes the tiny models by name; TinyConditioning and TinyLatent (C++: tests/nodes/dit_test.cpp) make seeded inputs.
"""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch

torch.use_deterministic_algorithms(False)

import comfy.controlnet
import comfy.latent_formats
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models as supported
import nodes
import safetensors.torch
from comfy.ldm.lumina.controlnet import ZImage_Control
from comfy_extras import nodes_controlnet, nodes_custom_sampler, nodes_model_advanced, nodes_model_patch, nodes_sd3

import make_sd3
import make_vaes
import tiny_models as tiny

CPU = torch.device("cpu")
SD3 = dict(in_channels=16, patch_size=2, input_size=None, depth=2, num_blocks=3, adm_in_channels=32, num_patches=64,
           pos_embed_max_size=8, pos_embed_scaling_factor=None,
           context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 128}})
DIT = dict(image_model="lumina2", patch_size=2, in_channels=16, n_refiner_layers=2, n_layers=2, qk_norm=True, cap_feat_dim=48,
           axes_lens=[300, 512, 512], multiple_of=32)
MODELS = {
    "sd3_medium": (supported.SD3, SD3), "sd3_large": (supported.SD3, {**SD3, "qk_norm": "rms"}),
    "sd3_dual": (supported.SD3, {**SD3, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1]}),
    "z_image": (supported.ZImage, dict(DIT, dim=256, n_heads=4, n_kv_heads=4, axes_dims=[16, 24, 24], rope_theta=256.0,
                                       ffn_dim_multiplier=1.0, z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32)),
    "lumina2": (supported.Lumina2, dict(DIT, dim=96, n_heads=4, n_kv_heads=2, axes_dims=[8, 8, 8], rope_theta=10000.0,
                                        ffn_dim_multiplier=2.0)),
}


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


CONTROL = dict(dim=256, n_heads=4, n_kv_heads=4, multiple_of=32, ffn_dim_multiplier=0.25)
CONTROLS = {"plain": dict(n_control_layers=6), "refined": dict(n_control_layers=15, additional_in_dim=17, refiner_control=True)}


def load_patch(name):
    form = name.split(".")[0].removeprefix("tiny_control_")
    model = ZImage_Control(**CONTROL, **CONTROLS[form], operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    model.load_state_dict({k: tiny.weight(f"{form}.{k}", list(v.shape)) for k, v in model.state_dict().items()})
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


class Patch(nodes_model_patch.ZImageControlPatch):
    """What it keeps from layer to layer ends with a model of 30 layers; with a shallow one it ends here."""

    def __call__(self, kwargs):
        if kwargs.get("block_type") == "noise_refiner" and kwargs["block_index"] == 0:
            self.temp_data = None
        return super().__call__(kwargs)


nodes_model_patch.ZImageControlPatch = Patch


class TinyVae:
    """Diffusers' autoencoder on the weights of vae_flux."""

    def __init__(self):
        self.model = make_vaes.autoencoder(tiny.vae(mult=(1, 2, 2), prefix="", z=16, quant=False), 16, False)

    def spacial_compression_encode(self):
        return 4

    def encode(self, pixels):
        return self.model.encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mean


def load_control(control_net_name):
    """tiny_sd3_16 and tiny_sd3_17 are InstantX's, tiny_sd3_canny, _depth and _blur Stability's."""
    kind = control_net_name.split(".")[0].removeprefix("tiny_sd3_")
    common = dict(compression_ratio=1, latent_format=comfy.latent_formats.SD3(), load_device=CPU, manual_cast_dtype=torch.float32)
    if kind.isdigit():
        common["latent_format"].shift_factor = 0
        return comfy.controlnet.ControlNet(make_sd3.instant_control(int(kind)), concat_mask=kind == "17", **common)
    prepare = {"canny": lambda a: a * 255 * 0.5 + 0.5, "depth": lambda a: 1.0 - a, "blur": lambda a: a}[kind]
    return comfy.controlnet.ControlNetSD35(make_sd3.large_control()[0], preprocess_image=prepare, **common)


LOADERS = {
    "ControlNetLoader": load_control,
    "ModelPatchLoader": load_patch,
    "VAELoader": lambda vae_name: TinyVae(),
    "TinyImage": lambda name, height, width: torch.rand([1, height, width, 3], generator=torch.Generator().manual_seed(len(name))),
    "TinyMask": lambda height, width: (torch.arange(width) > width // 3).float().expand(1, height, width).contiguous(),
    "UNETLoader": load_model,
    "LoraLoaderModelOnly": load_lora,
    "TinyConditioning": lambda name, tokens: [[tiny.weight(name, [1, tokens, 48]),
                                              {"pooled_output": tiny.weight(name + " pooled", [1, 32])}]],
    "TinyLatent": lambda name, batch, height, width: {
        "samples": tiny.weight(name, [batch, 16, height, width]) * (1.0 if name else 0.0)},
}
NODES = {**nodes.NODE_CLASS_MAPPINGS, **nodes_model_advanced.NODE_CLASS_MAPPINGS, **nodes_model_patch.NODE_CLASS_MAPPINGS,
         "ControlNetApplySD3": nodes_sd3.ControlNetApplySD3,
         "ControlNetInpaintingAliMamaApply": nodes_controlnet.ControlNetInpaintingAliMamaApply,
         **{n: getattr(nodes_custom_sampler, n) for n in ("DualModelGuider", "RandomNoise", "KSamplerSelect", "BasicScheduler",
                                                          "SamplerCustomAdvanced")},
         "SkipLayerGuidanceSD3": nodes_sd3.SkipLayerGuidanceSD3}


class Graph:
    def __init__(self, model):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name=f"tiny_{model}.safetensors", weight_dtype="default")

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def controlled(self, name, node="ControlNetApplySD3", positive=None, negative=None, **more):
        """Both conditionings behind a ControlNet."""
        text = lambda name: self.add("TinyConditioning", name=name, tokens=9)
        net = self.add("ControlNetLoader", control_net_name=f"tiny_sd3_{name}.safetensors")
        vae = self.add("VAELoader", vae_name="tiny_vae.safetensors")
        image = self.add("TinyImage", name="lines", height=36, width=40)
        inputs = {"strength": 0.7, "start_percent": 0.0, "end_percent": 1.0, **more}
        both = self.add(node, positive=positive or text("cat"), negative=negative or text("dog"), control_net=net, vae=vae,
                        image=image, **inputs)
        return both, [both[0], 1]

    def sample_with(self, positive, negative, **more):
        inputs = {"seed": 5, "steps": 4, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **more}
        return self.add("KSampler", model=self.model, positive=positive, negative=negative,
                        latent_image=self.add("TinyLatent", name="", batch=1, height=8, width=10), **inputs)

    def sample(self, positive=("cat", 9), negative=("dog", 9), latent=("", 1), model=None, **more):
        text = lambda name, tokens: self.add("TinyConditioning", name=name, tokens=tokens)
        inputs = {"seed": 5, "steps": 4, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **more}
        return self.add("KSampler", model=model or self.model, positive=text(*positive), negative=text(*negative),
                        latent_image=self.add("TinyLatent", name=latent[0], batch=latent[1], height=8, width=10), **inputs)


def pairs(layers, key, up, down, alpha=None):
    out = {}
    for name, (rows, columns) in layers.items():
        out[key(name) + up], out[key(name) + down] = tiny.weight(name + " up", [rows, 4]), tiny.weight(name + " down", [4, columns])
        if alpha:
            out[key(name) + ".alpha"] = torch.tensor(alpha)
    return out


def write_loras():
    """Fused queries, keys and values in original and in kohya's names; apart from each other in those of diffusers."""
    save = lambda t, name: safetensors.torch.save_file(t, os.path.join(comfy_env.HERE, "loras", name + ".safetensors"))
    kohya = (".lora_up.weight", ".lora_down.weight", 2.0)
    peft = (".lora_B.weight", ".lora_A.weight")
    fused = {"joint_blocks.0.x_block.attn.qkv": (384, 128), "joint_blocks.1.context_block.mlp.fc1": (512, 128),
             "joint_blocks.2.x_block.adaLN_modulation.1": (768, 128), "context_embedder": (128, 48)}
    save(pairs(fused, lambda n: "lora_unet_" + n.replace(".", "_"), *kohya), "sd3_kohya")
    save(pairs(fused, lambda n: "diffusion_model." + n, *peft), "sd3_plain")
    apart = {"transformer_blocks.0.attn.to_q": (128, 128), "transformer_blocks.0.attn.to_v": (128, 128),
             "transformer_blocks.1.attn.add_k_proj": (128, 128), "transformer_blocks.1.attn.to_out.0": (128, 128),
             "transformer_blocks.2.ff.net.2": (128, 512)}
    save(pairs(apart, lambda n: "transformer." + n, *peft), "sd3_diffusers")
    fused = {"layers.0.attention.qkv": (768, 256), "layers.1.feed_forward.w2": (256, 256), "noise_refiner.0.attention.out": (256, 256)}
    save(pairs(fused, lambda n: "lora_unet_" + n.replace(".", "_"), *kohya), "z_image_kohya")
    apart = {"layers.0.attention.to_q": (256, 256), "layers.0.attention.to_v": (256, 256), "layers.1.attention.to_out.0": (256, 256),
             "context_refiner.1.attention.to_k": (256, 256), "layers.1.adaLN_modulation.0": (1024, 256)}
    save(pairs(apart, lambda n: "diffusion_model." + n, *peft), "z_image_diffusers")


def cases():
    for model in MODELS:
        g = Graph(model)
        yield model + "_text", g, g.sample()
        g = Graph(model)
        yield model + "_lengths", g, g.sample(negative=("dog", 34), sampler_name="dpmpp_2m", scheduler="sgm_uniform")
        g = Graph(model)
        yield model + "_batch", g, g.sample(latent=("start", 2), denoise=0.6)
    g = Graph("sd3_medium")
    yield "sd3_shift", g, g.sample(model=g.add("ModelSamplingSD3", model=g.model, shift=1.5))
    g = Graph("sd3_large")
    yield "sd3_skip_layers", g, g.sample(model=g.add("SkipLayerGuidanceSD3", model=g.model, layers="1", scale=2.5, start_percent=0.01,
                                                     end_percent=0.7))
    g = Graph("z_image")
    yield "z_image_shift", g, g.sample(model=g.add("ModelSamplingAuraFlow", model=g.model, shift=5.0), cfg=1.0)
    for name in ("sd3_kohya", "sd3_plain", "sd3_diffusers", "z_image_kohya", "z_image_diffusers"):
        g = Graph("z_image" if name.startswith("z") else "sd3_dual")
        yield "lora_" + name, g, g.sample(model=g.add("LoraLoaderModelOnly", model=g.model, lora_name=name + ".safetensors",
                                                      strength_model=0.9))
    for name, form, pictures in (("picture", "plain", ["image"]), ("fill", "refined", ["image", "inpaint_image", "mask"]),
                                 ("fill_alone", "refined", ["inpaint_image", "mask"]), ("refined_picture", "refined", ["image"])):
        g = Graph("z_image")
        made = {"image": lambda: g.add("TinyImage", name="lines", height=32, width=40),
                "inpaint_image": lambda: g.add("TinyImage", name="photo!", height=50, width=70),
                "mask": lambda: g.add("TinyMask", height=60, width=80)}
        patch = g.add("ModelPatchLoader", name=f"tiny_control_{form}.safetensors")
        vae = g.add("VAELoader", vae_name="tiny_vae.safetensors")
        model = g.add("ZImageFunControlnet", model=g.model, model_patch=patch, vae=vae, strength=0.8,
                      **{picture: made[picture]() for picture in pictures})
        yield "control_" + name, g, g.sample(model=model, negative=("dog", 5))


def steered_cases():
    """ControlNets of SD3: InstantX's through every node, Stability's of each kind, both in a chain."""
    for name, node, more in (("16", "ControlNetApplySD3", {}), ("16", "ControlNetApplyAdvanced", dict(end_percent=0.6)),
                             ("canny", "ControlNetApplySD3", {}), ("depth", "ControlNetApplyAdvanced", {}),
                             ("blur", "ControlNetApplySD3", dict(start_percent=0.3))):
        g = Graph("sd3_medium")
        yield f"steered_{name}_{node}", g, g.sample_with(*g.controlled(name, node, **more))
    g = Graph("sd3_medium")
    mask = g.add("TinyMask", height=60, width=80)
    yield "steered_fill", g, g.sample_with(*g.controlled("17", "ControlNetInpaintingAliMamaApply", mask=mask))
    g = Graph("sd3_large")
    positive, negative = g.controlled("blur", strength=0.4)
    yield "steered_chain", g, g.sample_with(*g.controlled("16", positive=positive, negative=negative))


def two_model_cases():
    """The negative is asked of another model, of the same one, of none."""
    for name, other, cfg in (("other", "sd3_large", 3.0), ("same", "sd3_medium", 3.0), ("alone", None, 3.0), ("plain", "sd3_large", 1.0)):
        g = Graph("sd3_medium")
        more = {}
        if other:
            more["model_negative"] = g.add("UNETLoader", unet_name=f"tiny_{other}.safetensors", weight_dtype="default")
        text = lambda name, tokens: g.add("TinyConditioning", name=name, tokens=tokens)
        guider = g.add("DualModelGuider", model=g.model, positive=text("cat", 9), negative=text("dog", 9), cfg=cfg, **more)
        latent = g.add("TinyLatent", name="start", batch=2, height=8, width=10)
        yield "two_" + name, g, g.add(
            "SamplerCustomAdvanced", noise=g.add("RandomNoise", noise_seed=3), guider=guider, latent_image=latent,
            sampler=g.add("KSamplerSelect", sampler_name="euler"),
            sigmas=g.add("BasicScheduler", model=g.model, scheduler="simple", steps=4, denoise=1.0))


if __name__ == "__main__":
    write_loras()
    tensors, described = {}, []
    for name, g, latent in [*cases(), *steered_cases(), *two_model_cases()]:
        tensors[name] = comfy_env.run(g.nodes, LOADERS, NODES)(*latent)["samples"]
        described.append({"name": name, "workflow": g.nodes, "latent": latent})
        print(name, list(tensors[name].shape), float(tensors[name].std()))
    comfy_env.save("nodes_dit", tensors, {"cases": described})
