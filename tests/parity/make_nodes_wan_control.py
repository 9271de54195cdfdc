"""nodes_wan_control.*, wan_control_net.json, wan_uni3c.json: runs of the WanVideoWrapper's sampler on the tiny models with its control
networks, by the pack's own code (October 2025, e2d8c9b) on the CPU in float32, and what both networks give alone.

    COMFYUI_DIR=... WANVIDEOWRAPPER_DIR=... python tests/parity/make_nodes_wan_control.py

The pack knows the networks by the sizes of the published ones: its classes are made of the tiny sizes here. One thing is put right on the
way: a ControlNet outside of its steps says nothing (the pack goes on with what it said last, and stops where it has said nothing yet).
"""
import importlib
import os
import tempfile

import comfy_env
import make_nodes_wan_wrapper as wrapper_runs

import torch

import folder_paths
from safetensors.torch import save_file

import tiny_models as tiny
from make_nodes_wan import shapes

TEXT, WIDTH, HEIGHT, FRAMES, HEADS, LAYERS, MODEL = 48, 48, 32, 9, 2, 2, 256
CONTROL = dict(num_attention_heads=1, ffn_dim=64, text_dim=TEXT, num_layers=LAYERS)
UNI3C = dict(conv_out_dim=MODEL, time_embed_dim=MODEL, dim=128, num_heads=2, num_layers=LAYERS, mid_channels=8)


def images(frames=FRAMES, height=HEIGHT, width=WIDTH):
    """What the node gets as control_images, 0..1."""
    return torch.sigmoid(tiny.weight("control images", [frames, height, width, 3]) * 60)


def tiny_classes(loading):
    """The pack's classes in tiny sizes."""
    plain = loading.WanModel
    control = importlib.import_module("wrapper.controlnet.wan_controlnet")
    uni3c = importlib.import_module("wrapper.uni3c.controlnet")
    plain_control, plain_uni3c, forward = control.WanControlnet, uni3c.WanControlNet, plain.forward

    class TinyUni3C(plain_uni3c):
        def __init__(self, config):
            super().__init__({**config, **UNI3C})
            self.proj_out = torch.nn.ModuleList(torch.nn.Linear(UNI3C["dim"], MODEL) for _ in range(LAYERS))

    def in_range(self, *given, controlnet=None, **named):
        if controlnet and not controlnet["controlnet_start"] <= named["current_step_percentage"] < controlnet["controlnet_end"]:
            controlnet = None
        return forward(self, *given, controlnet=controlnet, **named)

    plain.forward = in_range
    loading.WanModel = lambda **config: plain(**{**config, "num_heads": HEADS, "num_layers": LAYERS, "text_dim": TEXT})
    control.WanControlnet = lambda **config: plain_control(**{**config, **CONTROL})
    uni3c.WanControlNet = TinyUni3C
    config = dict(added_kv_proj_dim=None, attention_head_dim=128, cross_attn_norm=None, downscale_coef=8, in_channels=3, out_proj_dim=MODEL,
                  vae_channels=16)
    narrow = dict(in_channels=36, ffn_dim=96, add_channels=7, attention_mode="sdpa", quantized=False, base_dtype=torch.float32)
    return control.WanControlnet(**config), TinyUni3C(narrow)


def main():
    loading, sampling, nodes, caches = wrapper_runs.pack()
    sampling.args.preview_method = sampling.LatentPreviewMethod.Latent2RGB
    controls, renders = (importlib.import_module(f"wrapper.{name}.nodes") for name in ("controlnet", "uni3c"))
    folder = tempfile.mkdtemp()
    out, cases = {}, []
    for kind in ("diffusion_models", "controlnet"):
        folder_paths.folder_names_and_paths[kind] = ([folder], {".safetensors"})
    for name in ("wan_t2v", "wan_i2v"):
        save_file({n: tiny.weight(n, s) for n, s in shapes(name).items()}, os.path.join(folder, name + ".safetensors"))
    for name, net in zip(("wan_control_net", "wan_uni3c"), tiny_classes(loading)):
        names = {n: list(p.shape) for n, p in net.named_parameters()}
        # What sees a mask or a camera's rays is never used.
        comfy_env.save(name, None, tiny.manifest({n: s for n, s in names.items() if "mask_embedding" not in n}))
        save_file({n: tiny.weight(n, s) for n, s in names.items()}, os.path.join(folder, name + ".safetensors"))
    given = dict(base_precision="fp32", quantization="disabled", load_device="main_device")
    control_net = controls.WanVideoControlnetLoader().loadmodel("wan_control_net.safetensors", **given)[0]
    uni3c = renders.WanVideoUni3C_ControlnetLoader().loadmodel("wan_uni3c.safetensors", attention_mode="sdpa", **given)[0]

    # Both networks alone: a quarter of each residual's numbers.
    x, text = tiny.weight("video", [1, 16, 2, 4, 4]) * 8, tiny.weight("text", [1, 7, TEXT])
    with torch.inference_mode():
        for title, times in {"net/control": [700.0], "net/control by frame": [[700.0, 200.5]]}.items():
            said = control_net(hidden_states=x, timestep=torch.tensor(times), encoder_hidden_states=text, return_dict=False,
                               controlnet_states=images(5, 32, 32).permute(3, 0, 1, 2).unsqueeze(0) * 2 - 1)[0]
            out[title] = torch.stack(list(said))[..., ::4]
        render = torch.cat([x, torch.zeros_like(x[:, :4]), tiny.weight("render", [1, 16, 2, 4, 4]) * 8], 1)
        said = uni3c(render_latent=render, render_mask=None, camera_embedding=None, temb=tiny.weight("time", [1, MODEL]) * 8, device="cpu")
        out["net/uni3c"] = torch.stack(said)[..., ::4]

    def embeds():
        return {"prompt_embeds": [tiny.weight("cat", [9, TEXT])], "negative_prompt_embeds": [tiny.weight("dog", [6, TEXT])]}

    def picture(frames=(FRAMES - 1) // 4 + 1):
        mask = torch.zeros(4, frames, HEIGHT // 8, WIDTH // 8)
        mask[:, 0] = 1
        return {"image_embeds": tiny.weight("picture", [16, frames, HEIGHT // 8, WIDTH // 8]), "mask": mask,
                "clip_context": tiny.weight("seen", [1, 7, 1280]), "negative_clip_context": None, "max_seq_len": frames * HEIGHT * WIDTH // 256,
                "num_frames": FRAMES, "lat_h": HEIGHT // 8, "lat_w": WIDTH // 8, "control_embeds": None, "end_image": None,
                "fun_or_fl2v_model": True, "has_ref": False, "add_cond_latents": None}

    def run(title, follow=None, render=None, size=(3, 4, 6), model="wan_t2v", frames=FRAMES, links=None, **options):
        named = {"steps": 4, "cfg": 2.5, "shift": 5.0, "seed": 7, "scheduler": "unipc", "riflex_freq_index": 0, **options}
        made = {}
        for name, (module, cls, values) in (links or {}).items():
            node = getattr(module, cls)()
            made[name] = getattr(node, node.FUNCTION)(**values)[0]
        loaded = loading.WanVideoModelLoader().loadmodel(model + ".safetensors", "fp32", "main_device", "disabled")[0]
        image = picture() if model == "wan_i2v" else nodes.WanVideoEmptyEmbeds().process(frames, WIDTH, HEIGHT)[0]
        with torch.inference_mode():
            if follow:
                loaded = controls.WanVideoControlnetApply().loadmodel(loaded, control_net, images(frames), **follow)[0]
            if render:
                latent = {"samples": tiny.weight("rendered", [1, 16, *size]) * 8}
                made["uni3c_embeds"] = renders.WanVideoUni3C_embeds().process(uni3c, render_latent=latent, **render)[0]
            result = sampling.WanVideoSampler().process(loaded, image, text_embeds=embeds(), force_offload=False, rope_function="comfy",
                                                        **named, **made)
        out[title] = result[0]["samples"].float().contiguous().clone()
        cases.append({"name": title, "model": model, "frames": frames, "prompts": [["cat", 9]], "inputs": named, "follow": follow, "render": render,
                      "size": list(size), "links": {n: {"class_type": cls, "inputs": values} for n, (_, cls, values) in (links or {}).items()}})

    def follow(stride=1, strength=1.0, start=0.0, end=1.0):
        return dict(strength=strength, control_stride=stride, control_start_percent=start, control_end_percent=end)

    def render(strength=1.0, start=0.0, end=1.0):
        return dict(strength=strength, start_percent=start, end_percent=end)

    slg = {"slg_args": (nodes, "WanVideoSLG", dict(blocks="1", start_percent=0.1, end_percent=0.8))}
    tea = {"cache_args": (caches, "WanVideoTeaCache", dict(rel_l1_thresh=0.25, start_step=1, end_step=-1, cache_device="offload_device",
                                                           use_coefficients=True, mode="e"))}
    windows = {"context_options": (nodes, "WanVideoContextOptions", dict(context_schedule="uniform_standard", context_frames=17, context_stride=4,
                                                                         context_overlap=8, freenoise=True, verbose=False))}
    run("follow", follow())
    run("follow strongly at times", follow(strength=1.7, start=0.25, end=0.75))
    run("follow by every second layer", follow(stride=2), cfg=1.0)
    run("follow with a skipped layer", follow(), links=slg)
    run("render", None, render())
    run("render weakly at times", None, render(0.6, 0.3, 0.6), size=(2, 3, 5))
    run("render until the start", None, render(1.0, 0.0, 0.01), cfg=1.0)
    run("render beside a picture", None, render(), model="wan_i2v")
    run("render with a skipped layer", None, render(), links=slg)
    run("render told from earlier steps", None, render(), steps=6, links=tea)
    run("render in windows", None, render(), size=(10, 4, 6), frames=37, steps=3, links=windows)
    run("both", follow(strength=0.5), render(0.5))
    comfy_env.save("nodes_wan_control", out, {"cases": cases})


if __name__ == "__main__":
    main()
