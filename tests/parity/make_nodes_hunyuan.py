"""nodes_hunyuan.*: workflows of HunyuanVideo's nodes on the tiny models, sampled for four steps, run by ComfyUI's nodes (0.3.64).

Loaders take the tiny models by name; TinyConditioning and TinyVideo (C++: tests/nodes/hunyuan_nodes_test.cpp) make seeded inputs.
"""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import comfy.model_detection  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sd  # noqa: E402
import nodes  # noqa: E402
from comfy_extras import nodes_custom_sampler, nodes_flux, nodes_hunyuan, nodes_model_advanced  # noqa: E402

import make_hunyuan_vae  # noqa: E402
import tiny_models as tiny  # noqa: E402

CPU = torch.device("cpu")
WIDTH, HEIGHT, LENGTH, TEXT, POOLED, HEAD = 48, 32, 9, 24, 20, 32
comfy.sd.AutoencoderKL = make_hunyuan_vae.narrow


def weights(dump):
    with open(os.path.join(comfy_env.HERE, dump + ".json"), encoding="utf-8") as f:
        return {n: tiny.weight(n, s) for n, s in json.load(f)["tensors"].items()}


def load_model(dump):
    state = weights(dump)
    config = comfy.model_detection.model_config_from_unet(state, "")
    # Its heads and its pooled text are narrower than any that ComfyUI knows.
    config.unet_config.update(num_heads=config.unet_config["hidden_size"] // HEAD, axes_dim=[4, 14, 14], vec_in_dim=POOLED)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(state, "")
    state = {n.replace("_norm.weight", "_norm.scale"): v for n, v in config.process_unet_state_dict(state).items()}
    model.diffusion_model.load_state_dict(state)
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


def video(name, frames, height, width):
    return torch.rand([frames, height, width, 3], generator=torch.Generator().manual_seed(len(name)))


LOADERS = {
    "UNETLoader": lambda unet_name, weight_dtype: load_model(unet_name.split(".")[0]),
    "VAELoader": lambda vae_name: comfy.sd.VAE(sd=weights(vae_name.split(".")[0])),
    "TinyConditioning": lambda name, tokens: [[tiny.weight(name, [1, tokens, TEXT]), {"pooled_output": tiny.weight(name + " pooled", [1, POOLED])}]],
    "TinyVideo": video,
}
NODES = {**nodes.NODE_CLASS_MAPPINGS, **nodes_model_advanced.NODE_CLASS_MAPPINGS, **nodes_hunyuan.NODE_CLASS_MAPPINGS,
         **{n: getattr(module, n) for module in (nodes_custom_sampler, nodes_flux) for n in dir(module)
            if n in ("BasicGuider", "SamplerCustomAdvanced", "RandomNoise", "KSamplerSelect", "BasicScheduler", "FluxGuidance")}}


class Graph:
    def __init__(self, model):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name=model + ".safetensors", weight_dtype="default")
        self.cat, self.dog = self.text("cat", 9), self.text("dog", 6)

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name, tokens):
        return self.add("TinyConditioning", name=name, tokens=tokens)

    def image_to_video(self, kind, frames=1):
        vae = self.add("VAELoader", vae_name="hunyuan_vae.safetensors")
        start = self.add("TinyVideo", name="start", frames=frames, height=40, width=48)
        node = self.add("HunyuanImageToVideo", positive=self.cat, vae=vae, width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1, guidance_type=kind,
                        start_image=start)
        return node, [node[0], 1]

    def sample(self, positive, latent, cfg):
        return self.add("KSampler", model=self.model, positive=positive, negative=self.dog, latent_image=latent, seed=5, steps=4, cfg=cfg,
                        sampler_name="euler", scheduler="simple", denoise=1.0)


def cases():
    g = Graph("hunyuan_video")
    model = g.add("ModelSamplingSD3", model=g.model, shift=7.0)
    guider = g.add("BasicGuider", model=model, conditioning=g.add("FluxGuidance", conditioning=g.cat, guidance=5.0))
    yield "text", g, g.add("SamplerCustomAdvanced", noise=g.add("RandomNoise", noise_seed=7), guider=guider, sampler=g.add("KSamplerSelect", sampler_name="euler"),
                           sigmas=g.add("BasicScheduler", model=model, scheduler="simple", steps=4, denoise=1.0),
                           latent_image=g.add("EmptyHunyuanLatentVideo", width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1))
    g = Graph("hunyuan_video")
    yield "negative", g, g.sample(g.cat, g.add("EmptyHunyuanLatentVideo", width=WIDTH, height=HEIGHT, length=1, batch_size=2), 2.5)
    g = Graph("hunyuan_video")
    yield "replace", g, g.sample(*g.image_to_video("v2 (replace)"), 1.0)
    g = Graph("hunyuan_video")
    yield "custom", g, g.sample(*g.image_to_video("custom"), 1.0)
    for model in ("hunyuan_video_i2v", "skyreels_i2v"):
        g = Graph(model)
        yield model, g, g.sample(*g.image_to_video("v1 (concat)", 5), 2.5)


def main():
    out, described = {}, []
    for name, g, latent in cases():
        out[name] = comfy_env.run(g.nodes, LOADERS, NODES)(*latent)["samples"]
        described.append({"name": name, "workflow": dict(g.nodes), "latent": latent})
        print(name, list(out[name].shape), out[name].abs().max().item())
    comfy_env.save("nodes_hunyuan", out, {"cases": described})


if __name__ == "__main__":
    main()
