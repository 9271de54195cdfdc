"""nodes_wan.*: workflows of Wan's own nodes on the tiny models, sampled for three steps, run by ComfyUI's nodes (0.3.64).

Loaders take the tiny models by name; TinyConditioning, TinyVideo, TinyMasks, TinyVision and TinyAudio (C++: tests/nodes/wan_nodes_test.cpp)
make seeded inputs. wan_fun, wan_fun22, wan_5b: names and shapes of tiny models that only these workflows use.
"""
import json
import os

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import comfy.ldm.wan.vae  # noqa: E402
import comfy.ldm.wan.vae2_2  # noqa: E402
import comfy.model_detection  # noqa: E402
import comfy.model_patcher  # noqa: E402
import nodes  # noqa: E402
from comfy.ldm.wan.model import WanModel  # noqa: E402
from comfy_extras import nodes_camera_trajectory, nodes_hunyuan, nodes_model_advanced, nodes_wan  # noqa: E402

import make_wan  # noqa: E402
import tiny_models as tiny  # noqa: E402

CPU = torch.device("cpu")
WIDTH, HEIGHT, LENGTH = 48, 32, 9


def shapes(dump):
    with open(os.path.join(comfy_env.HERE, dump + ".json"), encoding="utf-8") as f:
        return json.load(f)["tensors"]


def weights(dump):
    """Of a dump; of the expert for low noise other numbers in the same shapes."""
    if dump.endswith("_low"):
        return {n: tiny.weight("low " + n, s) for n, s in shapes(dump[:-4]).items()}
    return {n: tiny.weight(n, s) for n, s in shapes(dump).items()}


def load_model(dump):
    state = weights(dump)
    config = comfy.model_detection.model_config_from_unet(state, "")
    config.unet_config["text_dim"] = make_wan.TEXT
    if config.unet_config["model_type"] == "s2v":
        config.unet_config["audio_dim"] = 40
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(state, "")
    model.diffusion_model.load_state_dict(state)
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


class TinyVae:
    """What the nodes ask of comfy.sd.VAE, whose widths are those of the published files."""

    def __init__(self, dump):
        second = dump.endswith("22")
        sizes = dict(dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True])
        self.latent_channels = 48 if second else 16
        self.model = (comfy.ldm.wan.vae2_2.WanVAE(dim=8, dec_dim=12, z_dim=48, **sizes) if second else
                      comfy.ldm.wan.vae.WanVAE(dim=8, z_dim=16, **sizes))
        self.model.load_state_dict(weights(dump))

    def spacial_compression_encode(self):
        return 16 if self.latent_channels == 48 else 8

    def encode(self, frames):
        return self.model.encode((frames[..., :3] * 2 - 1).movedim(-1, 0).unsqueeze(0))


class Vision:
    def __init__(self, name, places):
        self.penultimate_hidden_states = tiny.weight(name, [1, places, 1280])


def video(name, frames, height, width):
    return torch.rand([frames, height, width, 3], generator=torch.Generator().manual_seed(len(name)))


LOADERS = {
    "UNETLoader": lambda unet_name, weight_dtype: load_model(unet_name.split(".")[0]),
    "VAELoader": lambda vae_name: TinyVae(vae_name.split(".")[0]),
    "TinyConditioning": lambda name, tokens: [[tiny.weight(name, [1, tokens, make_wan.TEXT]), {}]],
    "TinyVideo": video,
    "TinyMasks": lambda frames, height, width: (video("mask", frames, height, width)[..., 0] > 0.4).float(),
    "TinyVision": Vision,
    "TinyAudio": lambda name, layers, states, width: {"encoded_audio_all_layers": [tiny.weight(f"{name} {i}", [1, states, width]) for i in range(layers)]},
}
NODES = {**nodes.NODE_CLASS_MAPPINGS, **nodes_model_advanced.NODE_CLASS_MAPPINGS,
         "EmptyHunyuanLatentVideo": nodes_hunyuan.EmptyHunyuanLatentVideo, "WanCameraEmbedding": nodes_camera_trajectory.WanCameraEmbedding,
         **{n: getattr(nodes_wan, n) for n in dir(nodes_wan) if n.startswith(("Wan", "Trim"))}}


class Graph:
    def __init__(self, model, vae="wan_vae"):
        self.nodes = {}
        self.model = self.add("UNETLoader", unet_name=model + ".safetensors", weight_dtype="default")
        self.vae = self.add("VAELoader", vae_name=vae + ".safetensors")
        self.cat, self.dog = self.text("cat", 9), self.text("dog", 6)

    def add(self, class_type, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    def text(self, name, tokens):
        return self.add("TinyConditioning", name=name, tokens=tokens)

    def video(self, name, frames=LENGTH, height=40, width=48):
        return self.add("TinyVideo", name=name, frames=frames, height=height, width=width)

    def vision(self, name, places=7):
        return self.add("TinyVision", name=name, places=places)

    def wan(self, class_type, positive=None, negative=None, **more):
        sizes = {} if class_type.endswith("Extend") else {"width": WIDTH, "height": HEIGHT, "batch_size": 1}
        node = self.add(class_type, positive=positive or self.cat, negative=negative or self.dog, vae=self.vae, **{**sizes, "length": LENGTH, **more})
        return node, [node[0], 1], [node[0], 2]

    def audio(self, states):
        return self.add("TinyAudio", name="speech", layers=25, states=states, width=40)

    def sample(self, positive, negative, latent, steps=3):
        return self.add("KSampler", model=self.model, positive=positive, negative=negative, latent_image=latent, seed=5, steps=steps, cfg=2.5,
                        sampler_name="euler", scheduler="simple", denoise=1.0)


def cases():
    g = Graph("wan_vace")
    given = g.wan("WanVaceToVideo", strength=0.8, control_video=g.video("lines", 7), reference_image=g.video("face", 1),
                  control_masks=g.add("TinyMasks", frames=8, height=40, width=40))
    yield "vace", g, g.add("TrimVideoLatent", samples=g.sample(*given), trim_amount=[given[0][0], 3])
    g = Graph("wan_vace")
    first = g.wan("WanVaceToVideo", strength=0.8, control_video=g.video("lines"))
    yield "vace_two", g, g.sample(*g.wan("WanVaceToVideo", *first[:2], strength=1.5, control_video=g.video("depth map")))
    g = Graph("wan_vace")
    latent = g.wan("WanVaceToVideo", strength=1.0)[2]
    yield "vace_none", g, g.sample(g.cat, g.dog, latent)
    for model, pose in (("wan_camera", "Zoom In"), ("wan_camera22", "ClockWise (CW)")):
        g = Graph(model)
        rays = g.add("WanCameraEmbedding", camera_pose=pose, width=WIDTH, height=HEIGHT, length=LENGTH, speed=1.3, fx=0.6, fy=0.5, cx=0.5, cy=0.4)
        seen = {"clip_vision_output": g.vision("seen")} if model == "wan_camera" else {}
        yield model, g, g.sample(*g.wan("WanCameraImageToVideo", start_image=g.video("start", 1), camera_conditions=rays, **seen))
    g = Graph("wan_t2v")
    given = g.wan("WanPhantomSubjectToVideo", images=g.video("subjects", 2))
    yield "phantom", g, g.sample(given[0], given[1], [given[0][0], 3])
    yield "phantom_blind", g, g.sample(given[0], given[2], [given[0][0], 3])
    g = Graph("wan_fun")
    yield "fun", g, g.sample(*g.wan("WanFunControlToVideo", start_image=g.video("start", 1), control_video=g.video("lines", 7),
                                    clip_vision_output=g.vision("seen")))
    g = Graph("wan_fun22")
    yield "fun22", g, g.sample(*g.wan("Wan22FunControlToVideo", ref_image=g.video("face", 1), control_video=g.video("lines")))
    g = Graph("wan_i2v")
    yield "image", g, g.sample(*g.wan("WanImageToVideo", start_image=g.video("start", 2), clip_vision_output=g.vision("seen")))
    yield "inpaint", g, g.sample(*g.wan("WanFunInpaintToVideo", start_image=g.video("start", 1), end_image=g.video("the end", 3)))
    g = Graph("wan_flf")
    yield "first_last", g, g.sample(*g.wan("WanFirstLastFrameToVideo", start_image=g.video("start", 1), end_image=g.video("the end", 1),
                                           clip_vision_start_image=g.vision("seen", 3), clip_vision_end_image=g.vision("last", 3)))
    g = Graph("wan_5b", "wan_vae22")
    latent = g.add("Wan22ImageToVideoLatent", vae=g.vae, width=64, height=32, length=LENGTH, batch_size=2, start_image=g.video("start", 1))
    yield "second", g, g.sample(g.cat, g.dog, latent)
    yield from moving()
    g = Graph("wan_t2v")
    low = g.add("UNETLoader", unet_name="wan_t2v_low.safetensors", weight_dtype="default")
    high, low = (g.add("ModelSamplingSD3", model=model, shift=5.0) for model in (g.model, low))
    steps = dict(positive=g.cat, negative=g.dog, noise_seed=5, steps=4, cfg=2.5, sampler_name="euler", scheduler="simple")
    start = g.add("EmptyHunyuanLatentVideo", width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1)
    half = g.add("KSamplerAdvanced", model=high, latent_image=start, add_noise="enable", start_at_step=0, end_at_step=2,
                 return_with_leftover_noise="enable", **steps)
    yield "experts", g, g.add("KSamplerAdvanced", model=low, latent_image=half, add_noise="disable", start_at_step=2, end_at_step=10000,
                              return_with_leftover_noise="disable", **steps)


def moving():
    g = Graph("wan_animate")
    first = dict(clip_vision_output=g.vision("seen"), reference_image=g.video("face", 1), face_video=g.video("a face moves", 3, 60, 50),
                 pose_video=g.video("a pose", 7), continue_motion_max_frames=5, video_frame_offset=6)
    given = g.wan("WanAnimateToVideo", **first, background_video=g.video("behind", 12), continue_motion=g.video("before", 7),
                  character_mask=g.add("TinyMasks", frames=8, height=40, width=40))
    yield "animate", g, g.add("TrimVideoLatent", samples=g.sample(*given, steps=1), trim_amount=[given[0][0], 3])
    g = Graph("wan_animate")
    yield "animate_plain", g, g.sample(*g.wan("WanAnimateToVideo", pose_video=g.video("a pose", 20), video_frame_offset=7, continue_motion_max_frames=5,
                                              character_mask=g.add("TinyMasks", frames=1, height=40, width=40)))
    g = Graph("wan_s2v")
    given = g.wan("WanSoundImageToVideo", audio_encoder_output=g.audio(60), ref_image=g.video("face", 1), width=64, height=64,
                  ref_motion=g.video("before", 6))
    yield "sound", g, g.sample(*given)
    g = Graph("wan_s2v")
    latent = g.sample(*g.wan("WanSoundImageToVideo", audio_encoder_output=g.audio(60), control_video=g.video("lines", 7), width=64, height=64))
    yield "sound_begin", g, latent
    yield "sound_goes_on", g, g.sample(*g.wan("WanSoundImageToVideoExtend", video_latent=latent, audio_encoder_output=g.audio(60),
                                              ref_image=g.video("face", 1)))


def write_shapes():
    more = {"wan_fun": dict(model_type="i2v", in_dim=48), "wan_fun22": dict(in_dim=52, in_dim_ref_conv=16),
            "wan_5b": dict(in_dim=48, out_dim=48)}
    for name, sizes in more.items():
        model = WanModel(**{"model_type": "t2v", "out_dim": 16, **sizes}, dim=make_wan.WIDTH, ffn_dim=make_wan.MLP, text_dim=make_wan.TEXT, num_heads=2,
                         num_layers=2, device="meta", operations=comfy.ops.disable_weight_init)
        manifest = tiny.manifest({n: list(p.shape) for n, p in model.state_dict().items()})
        with open(os.path.join(comfy_env.HERE, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(manifest, f, indent=0)


def main():
    write_shapes()
    out, described = {}, []
    for name, g, latent in cases():
        out[name] = comfy_env.run(g.nodes, LOADERS, NODES)(*latent)["samples"]
        described.append({"name": name, "workflow": dict(g.nodes), "latent": latent})
        print(name, list(out[name].shape))
    comfy_env.save("nodes_wan", out, {"cases": described})


if __name__ == "__main__":
    main()
