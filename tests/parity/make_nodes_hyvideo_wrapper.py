"""nodes_hyvideo_wrapper.*: runs of the HunyuanVideoWrapper's own sampler on the tiny models, by the pack's own code (3ce9640, May 2025) on the
CPU in float32.

    COMFYUI_DIR=... HYVIDEOWRAPPER_DIR=... python tests/parity/make_nodes_hyvideo_wrapper.py

Text and pictures are seeded inputs (tests/nodes/hyvideo_wrapper_test.cpp makes the same). The pack's loader knows the published sizes alone; its
network is made of the tiny ones here instead, everything around it is as it is.
"""
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

import folder_paths  # noqa: E402
import latent_preview  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_hunyuan_video import HEAD, HIDDEN, TEXT, VECTOR, tencent  # noqa: E402

WIDTH, HEIGHT, FRAMES = 48, 32, 9


def pack():
    """The pack's nodes; transformers has no longer one helper that they import."""
    import transformers.processing_utils as processing
    if not hasattr(processing, "_validate_images_text_input_order"):
        processing._validate_images_text_input_order = lambda images, text: (images, text)
    package = types.ModuleType("hyvideo_wrapper")
    package.__path__ = [os.environ["HYVIDEOWRAPPER_DIR"]]
    sys.modules["hyvideo_wrapper"] = package
    nodes = importlib.import_module("hyvideo_wrapper.nodes")
    nodes.print_memory = lambda device: None
    latent_preview.prepare_callback = lambda *args: None
    network = nodes.HYVideoDiffusionTransformer

    def tiny_network(**config):
        return network(**{**config, "hidden_size": HIDDEN, "heads_num": HIDDEN // HEAD, "mm_double_blocks_depth": 2, "mm_single_blocks_depth": 2,
                          "rope_dim_list": [4, 14, 14], "text_states_dim": TEXT, "text_states_dim_2": VECTOR})

    nodes.HYVideoDiffusionTransformer = tiny_network
    return nodes


def tensors(dump):
    """The weights under Tencent's names, whichever the dump has."""
    with open(os.path.join(comfy_env.HERE, dump + ".json"), encoding="utf-8") as f:
        shapes = json.load(f)["tensors"]
    newer = any("_mod.lin." in name for name in shapes)
    return {tencent(n.replace("_norm.weight", "_norm.scale")) if newer else n: tiny.weight(n, s) for n, s in shapes.items()}


# The files and what they are made of: their names say how they take pictures.
MODELS = {"t2v": "hunyuan_video", "replace_i2v": "hunyuan_video", "custom": "hunyuan_video", "concat_i2v": "hunyuan_video_i2v", "skyreels": "skyreels_i2v"}


def main():
    nodes = pack()
    folder = tempfile.mkdtemp()
    folder_paths.folder_names_and_paths["diffusion_models"] = ([folder], {".safetensors"})
    for name, dump in MODELS.items():
        save_file(tensors(dump), os.path.join(folder, name + ".safetensors"))
    out, cases, links = {}, [], {}

    def embeds(pooled=True, **guidance):
        made = {"prompt_embeds": tiny.weight("cat", [1, 9, TEXT]), "prompt_embeds_2": tiny.weight("cat pooled", [1, VECTOR]) if pooled else None}
        if guidance:
            made |= {"negative_prompt_embeds": tiny.weight("dog", [1, 6, TEXT]), "negative_prompt_embeds_2": tiny.weight("dog pooled", [1, VECTOR])}
            made |= {key: torch.tensor(value) for key, value in guidance.items()}
        return made

    def link(**named):
        """Runs nodes and remembers how they were made."""
        links.clear()
        made = {}
        for name, (cls, values) in named.items():
            node = getattr(nodes, cls)()
            made[name] = getattr(node, node.FUNCTION)(**values)[0]
            links[name] = {"class_type": cls, "inputs": values}
        return made

    def run(title, model="t2v", frames=FRAMES, pooled=True, guidance=None, seeded=None, **options):
        given = {"steps": 4, "embedded_guidance_scale": 6.0, "flow_shift": 7.0, "seed": 7, "scheduler": "FlowMatchDiscreteScheduler", "i2v_mode": "dynamic",
                 "width": WIDTH, "height": HEIGHT, "num_frames": frames, **options}
        latents = {name: {"samples": tiny.weight(name, shape)} for name, shape in (seeded or {}).items() if name != "mask"}
        if seeded and "mask" in seeded:
            latents["mask"] = (tiny.weight("mask", seeded["mask"]) > 0).float()
        loaded = nodes.HyVideoModelLoader().loadmodel(model + ".safetensors", "fp32", "main_device", "disabled", attention_mode="sdpa")[0]
        with torch.no_grad():
            result = nodes.HyVideoSampler().process(loaded, embeds(pooled, **(guidance or {})), force_offload=False, **given, **latents)[0]["samples"]
        # Of a long video some frames are enough.
        out[title] = (result[:, :, ::8] if result.shape[2] > 10 else result).float().contiguous().clone()
        if "teacache_args" in given:
            print("left out:", loaded.model["pipe"].transformer.teacache_skipped_steps_cond)
        case = {"name": title, "model": model, "frames": frames, "pooled": pooled, "guidance": guidance, "seeded": seeded,
                "inputs": {k: v for k, v in given.items() if isinstance(v, (int, float, str, bool))}, "links": {k: v for k, v in links.items() if k in given}}
        cases.append(case)
        print(title, list(result.shape), result.abs().max().item())

    for scheduler in nodes.available_schedulers:
        run("scheduler " + scheduler, scheduler=scheduler, steps=6)
    run("shift", flow_shift=3.0, embedded_guidance_scale=1.0, pooled=False)
    run("one frame", frames=1)
    both = {"cfg": 2.5, "start_percent": 0.0, "end_percent": 1.0, "batched_cfg": True}
    run("guided", guidance=both)
    run("guided plainly", guidance=both | {"use_cfg_zero_star": False, "end_percent": 0.5})
    run("fresca", guidance=both, **link(fresca_args=("HunyuanVideoFresca", dict(fresca_scale_low=1.0, fresca_scale_high=1.5, fresca_freq_cutoff=1))))
    for mode in ("STG-A", "STG-R"):
        run(mode, **link(stg_args=("HyVideoSTG", dict(stg_mode=mode, stg_block_idx=1, stg_scale=1.5, stg_start_percent=0.0, stg_end_percent=0.5))))
    enhance = dict(weight=2.0, single_blocks=True, double_blocks=True, start_percent=0.0, end_percent=0.6)
    run("enhance", **link(feta_args=("HyVideoEnhanceAVideo", enhance)))
    run("enhance doubles", guidance=both, **link(feta_args=("HyVideoEnhanceAVideo", enhance | {"weight": 9.0, "single_blocks": False, "end_percent": 1.0})))
    run("enhance singles", **link(feta_args=("HyVideoEnhanceAVideo", enhance | {"weight": 9.0, "double_blocks": False})))
    tea = dict(rel_l1_thresh=0.3, cache_device="offload_device", start_step=0, end_step=-1)
    run("tea", steps=8, **link(teacache_args=("HyVideoTeaCache", tea)))
    run("tea guided", steps=8, guidance=both, **link(teacache_args=("HyVideoTeaCache", tea | {"start_step": 2, "end_step": 6})))
    for title, schedule in {"windows": "uniform_standard", "resting windows": "static_standard", "looped windows": "uniform_looped"}.items():
        run(title, frames=37, steps=3, **link(context_options=("HyVideoContextOptions", dict(
            context_schedule=schedule, context_frames=17, context_stride=4, context_overlap=8, freenoise=True))))
    run("loop", **link(loop_args=("HyVideoLoopArgs", dict(shift_skip=2, start_percent=0.0, end_percent=1.0))))
    links.clear()
    run("riflex", frames=205, steps=1, riflex_freq_index=2)
    frames, h, w = (FRAMES - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8
    picture = {"image_cond_latents": [1, 16, 1, h, w]}
    run("part", denoise_strength=0.6, steps=5, seeded={"samples": [1, 16, frames, h, w]})
    run("part dpm", denoise_strength=0.7, steps=6, scheduler="UniPCMultistepScheduler", seeded={"samples": [1, 16, frames + 1, h, w]})
    run("mask", denoise_strength=0.6, steps=5, seeded={"samples": [1, 16, frames, h, w], "mask": [FRAMES, HEIGHT, WIDTH]})
    run("replace", model="replace_i2v", seeded=picture)
    run("replace sde", model="replace_i2v", scheduler="SDE-DPMSolverMultistepScheduler", i2v_mode="stability", seeded=picture)
    run("concat", model="concat_i2v", seeded=picture)
    run("concat stable", model="concat_i2v", i2v_mode="stability", seeded=picture)
    run("skyreels", model="skyreels", guidance=both, seeded=picture)
    run("custom", model="custom", seeded=picture)
    comfy_env.save("nodes_hyvideo_wrapper", out, {"cases": cases})


if __name__ == "__main__":
    main()
