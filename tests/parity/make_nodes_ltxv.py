"""nodes_ltxv.*: workflows of LTX-Video's nodes on the tiny models, sampled for three steps, run by ComfyUI's nodes (0.3.64), and with the
perturbed attention of ComfyUI-LTXTricks by its formula. LTXVPreprocess' picture comes from PyAV.

Loaders take the tiny models by name; TinyConditioning and TinyVideo (C++: tests/nodes/ltxv_nodes_test.cpp) make seeded inputs.
"""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import comfy.model_detection  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import nodes  # noqa: E402
from comfy.ldm.lightricks import model as lightricks  # noqa: E402
from comfy_extras import nodes_custom_sampler, nodes_lt  # noqa: E402

import make_ltxv_vae  # noqa: E402
import tiny_models as tiny  # noqa: E402

CPU = torch.device("cpu")
WIDTH, HEIGHT, LENGTH, TEXT = 96, 64, 25, 24


def described(dump):
    with open(os.path.join(comfy_env.HERE, dump + ".json"), encoding="utf-8") as f:
        return json.load(f)


def load_model(dump):
    described_model = described(dump)
    state = tiny.weights(described_model["tensors"])
    metadata = {"config": described_model["config"]} if "config" in described_model else None
    config = comfy.model_detection.model_config_from_unet(state, "", metadata=metadata)
    # Narrower than any that ComfyUI knows.
    config.unet_config["caption_channels"] = TEXT
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(state, "")
    model.diffusion_model.load_state_dict(state)
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


def load_vae(name):
    model = described(name)
    return comfy.sd.VAE(sd=make_ltxv_vae.state_of(model["tensors"]), metadata={"config": model["config"]}, dtype=torch.float32)


def video(name, frames, height, width):
    return torch.rand([frames, height, width, 3], generator=torch.Generator().manual_seed(len(name)))


def conditioning(name, tokens, counting):
    mask = torch.tensor([[1] * counting + [0] * (tokens - counting)])
    return [[tiny.weight(name, [1, tokens, TEXT]), {"attention_mask": mask}]]


def perturbed(model, scale, rescale, cfg, layer):
    """The node of ComfyUI-LTXTricks by its formula (tricks/nodes/ltx_pag_node.py); blocks of the network are hooked here."""
    network = model.model.diffusion_model
    attention = network.transformer_blocks[layer].attn1

    def formula(args):
        cond, uncond = args["cond_denoised"], args["uncond_denoised"]
        usual = attention.forward
        attention.forward = lambda x, context=None, mask=None, pe=None, transformer_options={}: attention.to_out(attention.to_v(x))
        (without,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"])
        attention.forward = usual
        out = uncond + cfg * (cond - uncond) + scale * (cond - without)
        return out * (rescale * cond.std() / out.std() + 1 - rescale) if rescale > 0 else out

    changed = model.clone()
    changed.set_model_sampler_post_cfg_function(formula)
    return changed


LOADERS = {
    "UNETLoader": lambda unet_name, weight_dtype: load_model(unet_name.split(".")[0]),
    "VAELoader": lambda vae_name: load_vae(vae_name.split(".")[0]),
    "TinyConditioning": conditioning,
    "TinyVideo": video,
    "LTXAttnOverride": lambda layers: int(layers),
    "LTXPerturbedAttention": lambda model, scale, rescale, cfg, attn_override: perturbed(model, scale, rescale, cfg, attn_override),
}
NODES = {**nodes.NODE_CLASS_MAPPINGS,
         **{n: getattr(nodes_lt, n) for n in dir(nodes_lt) if "LTXV" in n},
         **{n: getattr(nodes_custom_sampler, n) for n in ("SamplerCustom", "KSamplerSelect")}}
assert lightricks.LTXVModel


class Graph:
    def __init__(self, model="ltxv"):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name=model + ".safetensors", weight_dtype="default")
        self.cat, self.dog = self.text("cat", 7, 5), self.text("dog", 7, 3)

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name, tokens, counting):
        return self.add("TinyConditioning", name=name, tokens=tokens, counting=counting)

    def vae(self):
        return self.add("VAELoader", vae_name="ltxv_vae.safetensors")

    def rate(self, frame_rate=24.0):
        node = self.add("LTXVConditioning", positive=self.cat, negative=self.dog, frame_rate=frame_rate)
        self.cat, self.dog = node, [node[0], 1]

    def empty(self, length=LENGTH, batch=1):
        return self.add("EmptyLTXVLatentVideo", width=WIDTH, height=HEIGHT, length=length, batch_size=batch)

    def video(self, name, frames, height=HEIGHT, width=WIDTH):
        return self.add("TinyVideo", name=name, frames=frames, height=height, width=width)

    def guide(self, latent, image, frame_idx, strength):
        node = self.add("LTXVAddGuide", positive=self.cat, negative=self.dog, vae=self.vae(), latent=latent, image=image, frame_idx=frame_idx, strength=strength)
        self.cat, self.dog = node, [node[0], 1]
        return [node[0], 2]

    def crop(self, latent):
        node = self.add("LTXVCropGuides", positive=self.cat, negative=self.dog, latent=latent)
        return [node[0], 2]

    def sample(self, latent, cfg=2.5, model=None):
        sigmas = self.add("LTXVScheduler", steps=3, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1, latent=latent)
        return self.add("SamplerCustom", model=model or self.model, add_noise=True, noise_seed=5, cfg=cfg, positive=self.cat, negative=self.dog,
                        sampler=self.add("KSamplerSelect", sampler_name="euler"), sigmas=sigmas, latent_image=latent)


def cases():
    g = Graph()
    g.rate()
    yield "text", g, g.sample(g.empty())
    g = Graph("ltxv_config")
    latent = g.empty(9, 2)
    model = g.add("ModelSamplingLTXV", model=g.model, max_shift=2.05, base_shift=0.95, latent=latent)
    yield "ksampler", g, g.add("KSampler", model=model, positive=g.cat, negative=g.dog, latent_image=latent, seed=5, steps=3, cfg=2.5, sampler_name="euler",
                               scheduler="simple", denoise=1.0)
    g = Graph()
    node = g.add("LTXVImgToVideo", positive=g.cat, negative=g.dog, vae=g.vae(), image=g.video("start", 1, 80, 96), width=WIDTH, height=HEIGHT, length=LENGTH,
                 batch_size=1, strength=0.75)
    g.cat, g.dog = node, [node[0], 1]
    yield "image", g, g.sample([node[0], 2])
    g = Graph("ltxv_config")
    latent = g.guide(g.empty(), g.video("first", 1, 50, 70), 0, 1.0)
    latent = g.guide(latent, g.video("late", 20), -9, 0.8)
    yield "guides", g, g.crop(g.sample(latent))
    g = Graph()
    latent = g.guide(g.empty(41), g.video("clip", 25), 8, 0.9)
    yield "video guide", g, g.sample(latent, 1.0)
    g = Graph()
    model = g.add("LTXPerturbedAttention", model=g.model, scale=1.0, rescale=0.25, cfg=3.0, attn_override=g.add("LTXAttnOverride", layers="1"))
    yield "perturbed", g, g.sample(g.empty(9), 7.0, model)


def preprocessed():
    """A smooth picture, of which a video encoder keeps what is there."""
    rows, columns = torch.arange(34).view(-1, 1) / 34, torch.arange(48).view(1, -1) / 48
    image = torch.stack([rows.expand(34, 48), columns.expand(34, 48), (rows * columns)], -1).unsqueeze(0)
    return nodes_lt.LTXVPreprocess.execute(image, 40).args[0]


def main():
    out, told = {}, []
    for name, g, latent in cases():
        out[name] = comfy_env.run(g.nodes, LOADERS, NODES)(*latent)["samples"]
        told.append({"name": name, "workflow": dict(g.nodes), "latent": latent})
        print(name, list(out[name].shape), out[name].abs().max().item())
    out["preprocessed"] = (preprocessed() * 255).round().to(torch.uint8)
    comfy_env.save("nodes_ltxv", out, {"cases": told})


if __name__ == "__main__":
    main()
