"""nodes_hunyuan15.*: workflows of HunyuanVideo 1.5's nodes on the tiny models, sampled for four steps, run by ComfyUI's nodes (0.33).

Loaders take the tiny models by name; TinyConditioning, TinyVideo and TinyVision (C++: tests/nodes/hunyuan15_nodes_test.cpp) make seeded inputs."""
import types

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402
import nodes  # noqa: E402
from comfy_extras import nodes_custom_sampler, nodes_hunyuan, nodes_model_advanced  # noqa: E402

import make_hunyuan_vae15  # noqa: E402
import make_hunyuan_video15 as network  # noqa: E402
import tiny_models as tiny  # noqa: E402

CPU = torch.device("cpu")
WIDTH, HEIGHT, LENGTH = 48, 32, 5


def load_model():
    built, shapes = network.build()
    config = comfy.supported_models.HunyuanVideo15({"image_model": "hunyuan_video", "disable_unet_model_creation": True})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    model.diffusion_model = built
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


def video(name, frames, height, width):
    return torch.rand([frames, height, width, 3], generator=torch.Generator().manual_seed(len(name)))


def conditioning(name, tokens, glyphs):
    more = {"conditioning_byt5small": tiny.weight(name + " glyphs", [1, glyphs, network.GLYPHS])} if glyphs else {}
    return [[tiny.weight(name, [1, tokens, network.TEXT]), {"pooled_output": None, **more}]]


LOADERS = {
    "UNETLoader": lambda unet_name, weight_dtype: load_model(),
    "VAELoader": lambda vae_name: make_hunyuan_vae15.load()[0],
    "TinyConditioning": conditioning,
    "TinyVideo": video,
    "TinyVision": lambda name, tokens: types.SimpleNamespace(last_hidden_state=tiny.weight(name, [1, tokens, network.VISION])),
}
NODES = {**nodes.NODE_CLASS_MAPPINGS, **{n: getattr(module, n) for module in (nodes_custom_sampler, nodes_hunyuan, nodes_model_advanced) for n in dir(module)
                                         if isinstance(getattr(module, n), type)}}


class Graph:
    def __init__(self):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name="hunyuan_video15.safetensors", weight_dtype="default")
        self.cat, self.dog = self.text("cat", 6, 3), self.text("dog", 4, 0)

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name, tokens, glyphs):
        return self.add("TinyConditioning", name=name, tokens=tokens, glyphs=glyphs)

    def sample(self, positive, negative, latent):
        model = self.add("ModelSamplingSD3", model=self.model, shift=7.0)
        guider = self.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=2.5)
        return self.add("SamplerCustomAdvanced", noise=self.add("RandomNoise", noise_seed=7), guider=guider, sampler=self.add("KSamplerSelect", sampler_name="euler"),
                        sigmas=self.add("BasicScheduler", model=model, scheduler="simple", steps=4, denoise=1.0), latent_image=latent)

    def image_to_video(self, frames, vision, batch):
        more = {}
        if frames:
            more["start_image"] = self.add("TinyVideo", name="start", frames=frames, height=40, width=48)
        if vision:
            more["clip_vision_output"] = self.add("TinyVision", name="seen", tokens=4)
        node = self.add("HunyuanVideo15ImageToVideo", positive=self.cat, negative=self.dog, vae=self.add("VAELoader", vae_name="hunyuan_vae15.safetensors"),
                        width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=batch, **more)
        return node, [node[0], 1], [node[0], 2]


def cases():
    g = Graph()
    yield "text", g, g.sample(g.cat, g.dog, g.add("EmptyHunyuanVideo15Latent", width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1))
    for name, frames, vision, batch in (("picture", 1, True, 1), ("frames", 5, False, 2), ("seen", 0, True, 1)):
        g = Graph()
        yield name, g, g.sample(*g.image_to_video(frames, vision, batch))


def main():
    out, described = {}, []
    for name, g, latent in cases():
        out[name] = comfy_env.run(g.nodes, LOADERS, NODES)(*latent)["samples"]
        described.append({"name": name, "workflow": dict(g.nodes), "latent": latent})
        print(name, list(out[name].shape), out[name].abs().max().item())
    comfy_env.save("nodes_hunyuan15", out, {"cases": described})


if __name__ == "__main__":
    main()
