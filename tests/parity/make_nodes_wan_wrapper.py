"""nodes_wan_wrapper.*: runs of the WanVideoWrapper's own sampler on the tiny models, by the pack's own code (October 2025) on the CPU in
float32.

    COMFYUI_DIR=... WANVIDEOWRAPPER_DIR=... python tests/parity/make_nodes_wan_wrapper.py

Text and pictures are seeded inputs (tests/nodes/wan_wrapper_test.cpp makes the same). The pack knows models by the widths of the
published ones; its network is made of the tiny sizes here instead, everything around it is as it is.
"""
import importlib
import os
import sys
import tempfile
import types
from unittest import mock

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import folder_paths  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_nodes_wan import shapes  # noqa: E402

TEXT, WIDTH, HEIGHT, FRAMES = 48, 48, 32, 9
HEADS, LAYERS = 2, 2


def pack():
    """The pack's modules; what it imports for other models is not needed."""
    for name in ("ftfy", "cv2", "matplotlib", "matplotlib.pyplot", "onnxruntime", "onnx", "decord", "imageio", "moviepy", "librosa", "pyloudnorm",
                 "server", "nltk", "soundfile", "imageio_ffmpeg", "color_matcher", "kornia"):
        try:
            importlib.import_module(name)
        except Exception:
            sys.modules[name] = mock.MagicMock(name=name)
    package = types.ModuleType("wrapper")
    package.__path__ = [os.environ["WANVIDEOWRAPPER_DIR"]]
    sys.modules["wrapper"] = package
    names = ("nodes_model_loading", "nodes_sampler", "nodes", "cache_methods.nodes_cache")
    return [importlib.import_module("wrapper." + name) for name in names]


def main():
    loading, sampling, nodes, caches = pack()
    sampling.args.preview_method = sampling.LatentPreviewMethod.Latent2RGB
    plain = loading.WanModel

    def tiny_model(**config):
        vace = config["vace_layers"] and [0, LAYERS]
        return plain(**{**config, "num_heads": HEADS, "num_layers": LAYERS * 2 if vace else LAYERS, "text_dim": TEXT, "vace_layers": vace})

    loading.WanModel = tiny_model
    folder = tempfile.mkdtemp()
    folder_paths.folder_names_and_paths["diffusion_models"] = ([folder], {".safetensors"})
    models = {}
    for name in ("wan_t2v", "wan_i2v", "wan_vace"):
        save_file({n: tiny.weight(n, s) for n, s in shapes(name).items()}, os.path.join(folder, name + ".safetensors"))
        models[name] = lambda name=name: loading.WanVideoModelLoader().loadmodel(name + ".safetensors", "fp32", "main_device", "disabled")[0]

    def text(name, tokens):
        return tiny.weight(name, [tokens, TEXT])

    def embeds(prompts=(("cat", 9),), negative=("dog", 6)):
        return {"prompt_embeds": [text(*p) for p in prompts], "negative_prompt_embeds": [text(*negative)]}

    def empty(frames=FRAMES):
        return nodes.WanVideoEmptyEmbeds().process(frames, WIDTH, HEIGHT)[0]

    out, cases = {}, []

    def run(title, model="wan_t2v", image=None, prompts=(("cat", 9),), frames=FRAMES, **options):
        given = {"steps": 4, "cfg": 2.5, "shift": 5.0, "seed": 7, "scheduler": "unipc", "riflex_freq_index": 0, **options}
        with torch.inference_mode():
            result = sampling.WanVideoSampler().process(models[model](), image if image is not None else empty(frames), text_embeds=embeds(prompts),
                                                        force_offload=False, rope_function="comfy", **given)
        out[title] = result[0]["samples"].float().contiguous().clone()
        if title == "first half":
            out[title + " denoised"] = result[1]["samples"].float().contiguous().clone()
        case = {"name": title, "model": model, "frames": frames, "prompts": [list(p) for p in prompts]}
        case["inputs"] = {k: v for k, v in given.items() if isinstance(v, (int, float, str, bool, list))}
        case["links"] = links.copy()
        cases.append(case)
        return result[0]

    # Nodes whose outputs the sampler takes, by the input that takes them: class and widget values.
    links = {}

    def link(**named):
        """Runs nodes and remembers how they were made."""
        links.clear()
        made = {}
        for name, (module, cls, values) in named.items():
            node = getattr(module, cls)()
            made[name] = getattr(node, node.FUNCTION)(**values)[0]
            links[name] = {"class_type": cls, "inputs": values}
        return made

    for scheduler in ("unipc", "unipc/beta", "dpm++", "dpm++_sde", "euler", "euler/beta", "deis", "lcm", "res_multistep", "flowmatch_pusa", "sa_ode_stable"):
        run("scheduler " + scheduler, scheduler=scheduler)
    run("no guidance", cfg=1.0)
    run("list of scales", cfg=[4.0, 2.0, 1.0])
    run("riflex", riflex_freq_index=3)
    run("two prompts", prompts=(("cat", 9), ("bird", 5)))
    run("tea", steps=6, **link(cache_args=(caches, "WanVideoTeaCache", dict(rel_l1_thresh=0.25, start_step=1, end_step=-1, cache_device="offload_device", use_coefficients=True, mode="e"))))
    run("tea parts", steps=6, **link(cache_args=(caches, "WanVideoTeaCache", dict(rel_l1_thresh=0.1, start_step=1, end_step=-1, cache_device="offload_device", use_coefficients=False, mode="e0"))))
    run("mag", steps=6, **link(cache_args=(caches, "WanVideoMagCache", dict(magcache_thresh=0.05, magcache_K=2, start_step=1, end_step=-1, cache_device="offload_device"))))
    run("easy", steps=6, **link(cache_args=(caches, "WanVideoEasyCache", dict(easycache_thresh=0.5, start_step=1, end_step=-1, cache_device="offload_device"))))
    run("slg", **link(slg_args=(nodes, "WanVideoSLG", dict(blocks="1", start_percent=0.1, end_percent=0.8))))
    run("enhance", **link(feta_args=(nodes, "WanVideoEnhanceAVideo", dict(weight=2.0, start_percent=0.0, end_percent=0.6))))
    plain_args = dict(video_attention_split_steps="", cfg_zero_star=False, use_zero_init=False, zero_star_steps=0, use_fresca=False,
                      fresca_scale_low=1.0, fresca_scale_high=1.25, fresca_freq_cutoff=1, use_tcfg=False)
    for title, more in {"zero star": dict(cfg_zero_star=True, use_zero_init=True), "fresca": dict(use_fresca=True, cfg_zero_star=True),
                        "tcfg": dict(use_tcfg=True), "raag": dict(raag_alpha=0.7), "score": dict(temporal_score_rescaling=True, tsr_k=0.9, tsr_sigma=0.8)}.items():
        run(title, **link(experimental_args=(nodes, "WanVideoExperimentalArgs", {**plain_args, **more})))
    for title, schedule in {"windows": "uniform_standard", "resting windows": "static_standard", "looped windows": "uniform_looped"}.items():
        run(title, frames=37, steps=3, prompts=(("cat", 9), ("bird", 5)), **link(context_options=(nodes, "WanVideoContextOptions", dict(
            context_schedule=schedule, context_frames=17, context_stride=4, context_overlap=8, freenoise=True, verbose=False))))
    run("loop", **link(loop_args=(nodes, "WanVideoLoopArgs", dict(shift_skip=2, start_percent=0.0, end_percent=1.0))))
    links.clear()

    # One sampler goes on where another one stopped.
    first = run("first half", scheduler="dpm++_sde", end_step=2)
    with torch.inference_mode():
        second = sampling.WanVideoSampler().process(models["wan_t2v"](), empty(), steps=4, cfg=1.0, shift=5.0, seed=99, scheduler="dpm++_sde",
                                                    riflex_freq_index=0, force_offload=False, text_embeds=embeds(), samples=first, start_step=2,
                                                    rope_function="comfy")
    out["second half"] = second[0]["samples"].float().contiguous().clone()

    # A picture to begin with.
    frames = (FRAMES - 1) // 4 + 1
    latent, mask = tiny.weight("picture", [16, frames, HEIGHT // 8, WIDTH // 8]), torch.zeros(4, frames, HEIGHT // 8, WIDTH // 8)
    mask[:, 0] = 1
    image = {"image_embeds": latent, "mask": mask, "clip_context": tiny.weight("seen", [1, 7, 1280]), "negative_clip_context": None,
             "max_seq_len": frames * HEIGHT * WIDTH // 256, "num_frames": FRAMES, "lat_h": HEIGHT // 8, "lat_w": WIDTH // 8, "control_embeds": None,
             "end_image": None, "fun_or_fl2v_model": True, "has_ref": False, "add_cond_latents": None}
    run("picture", model="wan_i2v", image=image)
    follow = {"vace_context": [tiny.weight("followed", [96, frames, HEIGHT // 8, WIDTH // 8])], "vace_scale": 0.8, "has_ref": False, "num_frames": FRAMES,
              "target_shape": (16, frames, HEIGHT // 8, WIDTH // 8), "vace_start_percent": 0.0, "vace_end_percent": 0.6,
              "vace_seq_len": frames * HEIGHT * WIDTH // 256, "additional_vace_inputs": []}
    run("vace", model="wan_vace", image=follow)
    comfy_env.save("nodes_wan_wrapper", out, {"cases": cases})


if __name__ == "__main__":
    main()
