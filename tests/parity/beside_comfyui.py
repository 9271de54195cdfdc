"""Runs whole workflows at the real widths of models with ComfyUI and with distorch and compares every latent, conditioning and picture
that their nodes put out: by hand, since the files take gigabytes (README.md).

    python beside_comfyui.py --bin build/release/bin --models FOLDER --out FOLDER [--input FOLDER] [--make] [--prompts N] CASE ...

CASE is one of FAMILIES below (ten prompts with a seed each) or a workflow of one's own in API format. --make writes the files of the
families with make_random_model first; later runs find them. COMFYUI_DIR names the checkout; everything is computed in float32.
"""
import argparse
import json
import os
import subprocess
import sys

import comfy_env

PROMPTS = [
    "a lighthouse on a cliff above a stormy sea, oil painting",
    "portrait of an old fisherman, (wrinkles:1.3), soft light",
    "a red bicycle leaning on a yellow wall",
    "ein kleiner Hund im Schnee, Aquarell",
    "雨の夜の東京、ネオンの光",
    "macro photo of a dragonfly, shallow depth of field, bokeh",
    "an empty library with tall windows, [dust], volumetric light",
    "кот на крыше смотрит на луну",
    "isometric map of a village, pixel art 🏡🌳",
    "",
]


def picture(loaders, model, clip, vae, latent="EmptySD3LatentImage", cfg=1.0, sampler="euler", scheduler="simple", shift=None):
    """A function (prompt, seed) -> workflow. model, clip and vae are links."""
    def workflow(prompt, seed):
        nodes = dict(loaders)
        link = model
        if shift:
            nodes["shift"] = {"class_type": shift[0], "inputs": {"model": model, "shift": shift[1]}}
            link = ["shift", 0]
        for name, text in (("positive", prompt), ("negative", "blurry")):
            nodes[name] = {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": clip}}
        nodes["latent"] = {"class_type": latent, "inputs": {"width": 64, "height": 64, "batch_size": 1}}
        nodes["sample"] = {"class_type": "KSampler", "inputs": {
            "model": link, "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "seed": seed,
            "steps": 4, "cfg": cfg, "sampler_name": sampler, "scheduler": scheduler, "denoise": 1.0}}
        nodes["decode"] = {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": vae}}
        nodes["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
        return nodes
    return workflow


def checkpoint(file):
    return {"load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": file}}}


def parts(unet, vae, clip_class, **clip):
    return {"unet": {"class_type": "UNETLoader", "inputs": {"unet_name": unet, "weight_dtype": "default"}},
            "clip": {"class_type": clip_class, "inputs": clip},
            "vae": {"class_type": "VAELoader", "inputs": {"vae_name": vae}}}


IN_CHECKPOINT = (["load", 0], ["load", 1], ["load", 2])
APART = (["unet", 0], ["clip", 0], ["vae", 0])

# name -> (files as (kind, size, path) of make_random_model, workflow)
FAMILIES = {
    "sd15": ([("sd15", "full", "checkpoints/random_sd15.safetensors")],
             picture(checkpoint("random_sd15.safetensors"), *IN_CHECKPOINT, "EmptyLatentImage", 7.0, "dpmpp_2m", "karras")),
    # ComfyUI knows no SDXL with fewer layers but the published small ones.
    "sdxl": ([("sdxl-vega", "full", "checkpoints/random_vega.safetensors")],
             picture(checkpoint("random_vega.safetensors"), *IN_CHECKPOINT, "EmptyLatentImage", 6.0, "euler", "normal")),
    "flux": ([("flux-dev", "truncated", "diffusion_models/random_flux.safetensors"), ("clip-l", "full", "text_encoders/random_clip_l.safetensors"),
              ("t5xxl", "truncated", "text_encoders/random_t5.safetensors"), ("flux-vae", "full", "vae/random_ae.safetensors")],
             picture(parts("random_flux.safetensors", "random_ae.safetensors", "DualCLIPLoader", clip_name1="random_clip_l.safetensors",
                           clip_name2="random_t5.safetensors", type="flux"), *APART)),
    "qwen_image": ([("qwen-image", "truncated", "diffusion_models/random_qwen_image.safetensors"),
                    ("qwen2.5-vl-7b", "truncated", "text_encoders/random_qwen25.safetensors"), ("qwen-vae", "full", "vae/random_qwen_vae.safetensors")],
                   picture(parts("random_qwen_image.safetensors", "random_qwen_vae.safetensors", "CLIPLoader",
                                 clip_name="random_qwen25.safetensors", type="qwen_image"), *APART, cfg=2.5, shift=("ModelSamplingAuraFlow", 3.1))),
    # Needs ComfyUI 0.33.
    "z_image": ([("z-image", "truncated", "diffusion_models/random_z_image.safetensors"), ("qwen3-4b", "truncated", "text_encoders/random_qwen3.safetensors"),
                 ("flux-vae", "full", "vae/random_ae.safetensors")],
                picture(parts("random_z_image.safetensors", "random_ae.safetensors", "CLIPLoader", clip_name="random_qwen3.safetensors", type="lumina2"),
                        *APART, cfg=3.0, shift=("ModelSamplingAuraFlow", 3.0))),
}

# Diffusion models and T5 as GGUF files: needs the package ComfyUI-GGUF in the checkout's custom_nodes. It computes decoded numbers in float16, but for
# "..._float32" (the diffusion model alone; its loader of text encoders has no such input).
for blocks in ("Q8_0", "Q4_0", "Q4_K"):
    flux, t5, unet = f"random_flux_{blocks}.gguf", "random_t5_Q8_0.gguf", f"random_sd15_{blocks}.gguf"
    others = FAMILIES["flux"][0][1:]
    exact = {"dequant_dtype": "float32", "patch_dtype": "default", "patch_on_device": False}
    FAMILIES["flux_" + blocks] = (
        [("flux-dev", "truncated", "unet/" + flux), others[0], ("t5xxl", "truncated", "text_encoders/" + t5), others[2]],
        picture({**parts("", "random_ae.safetensors", "DualCLIPLoaderGGUF", clip_name1="random_clip_l.safetensors", clip_name2=t5, type="flux"),
                 "unet": {"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": flux}}}, *APART))
    FAMILIES[f"flux_{blocks}_float32"] = (
        [("flux-dev", "truncated", "unet/" + flux), *others],
        picture({**parts("", "random_ae.safetensors", "DualCLIPLoader", clip_name1="random_clip_l.safetensors", clip_name2="random_t5.safetensors", type="flux"),
                 "unet": {"class_type": "UnetLoaderGGUFAdvanced", "inputs": {"unet_name": flux, **exact}}}, *APART))
    for ending, loader, more in (("", "UnetLoaderGGUF", {}), ("_float32", "UnetLoaderGGUFAdvanced", exact)):
        FAMILIES["sd15_" + blocks + ending] = (
            [*FAMILIES["sd15"][0], ("sd15", "full", "unet/" + unet)],
            picture({**checkpoint("random_sd15.safetensors"), "unet": {"class_type": loader, "inputs": {"unet_name": unet, **more}}},
                    ["unet", 0], ["load", 1], ["load", 2], "EmptyLatentImage", 7.0, "dpmpp_2m", "karras"))

EXTRAS = ("custom_sampler", "sd3", "flux", "model_advanced", "qwen", "edit_model", "mask", "images", "latent", "post_processing", "clip_sdxl")


def short_encoders():
    """ComfyUI takes the number of layers of a text encoder from its own lists; here it comes from the file."""
    import comfy.sd
    load, detect, find_t5 = comfy.sd.load_text_encoder_state_dicts, comfy.sd.detect_te_model, comfy.sd.t5xxl_detect
    wide_t5 = "encoder.block.0.layer.1.DenseReluDense.wi_1.weight"

    def count(tensors, prefix):
        n = 0
        while any(name.startswith(f"{prefix}{n}.") for name in tensors):
            n += 1
        return n

    def sizes(tensors):
        if wide_t5 in tensors:
            return {"t5xxl_model_config": {"num_layers": count(tensors, "encoder.block.")}}
        if "model.layers.0.self_attn.k_proj.weight" in tensors:
            layers = {"num_hidden_layers": count(tensors, "model.layers.")}
            return {f"{kind}_model_config": layers for kind in ("qwen25_7b", "qwen3_4b", "qwen3_8b")}
        return {}

    def loaded(state_dicts=[], embedding_directory=None, clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION, model_options={}, **more):
        options = dict(model_options)
        for tensors in state_dicts:
            options.update(sizes(tensors))
        return load(state_dicts, embedding_directory=embedding_directory, clip_type=clip_type, model_options=options, **more)

    def detected(tensors):
        return comfy.sd.TEModel.T5_XXL if wide_t5 in tensors else detect(tensors)

    def found_t5(state_dicts):
        for tensors in state_dicts:
            if wide_t5 in tensors:
                return comfy.text_encoders.sd3_clip.t5_xxl_detect(tensors)
        return find_t5(state_dicts)

    comfy.sd.load_text_encoder_state_dicts, comfy.sd.detect_te_model, comfy.sd.t5xxl_detect = loaded, detected, found_t5


def named_tensors(node, outputs):
    import torch
    found = {}
    for slot, value in enumerate(outputs):
        name = f"{node}.{slot}"
        if isinstance(value, dict) and "samples" in value:
            found[name] = value["samples"]
        elif isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, list) and value and isinstance(value[0], (list, tuple)) and len(value[0]) == 2 and isinstance(value[0][1], dict):
            found[name] = value[0][0]
            if value[0][1].get("pooled_output") is not None:
                found[name + ".pooled"] = value[0][1]["pooled_output"]
    return {name: tensor.float().contiguous().clone() for name, tensor in found.items()}


def reference(options):
    """What ComfyUI's nodes put out for every workflow: OUT/comfyui/<workflow>.safetensors. Loaders run once for all of them."""
    comfy_env.import_comfy()
    import importlib
    import importlib.util
    import safetensors.torch
    import torch
    torch.set_num_threads(os.cpu_count())
    torch.use_deterministic_algorithms(False)
    import folder_paths
    import nodes
    for folder in os.listdir(options.models):
        folder_paths.add_model_folder_path(folder, os.path.join(options.models, folder), is_default=True)
    if options.input:
        folder_paths.set_input_directory(options.input)
    for extra in EXTRAS:
        try:
            module = importlib.import_module("comfy_extras.nodes_" + extra)
        except ImportError:
            continue
        nodes.NODE_CLASS_MAPPINGS.update(getattr(module, "NODE_CLASS_MAPPINGS", {}))
        for value in vars(module).values():
            if isinstance(value, type) and "define_schema" in vars(value):
                nodes.NODE_CLASS_MAPPINGS[value.define_schema().node_id] = value
    package = os.path.join(os.path.dirname(os.path.abspath(nodes.__file__)), "custom_nodes", "ComfyUI-GGUF")
    if os.path.isdir(package):
        spec = importlib.util.spec_from_file_location("comfyui_gguf", os.path.join(package, "__init__.py"), submodule_search_locations=[package])
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])
        nodes.NODE_CLASS_MAPPINGS.update(sys.modules[spec.name].NODE_CLASS_MAPPINGS)
    short_encoders()
    loaded = {}

    def run(workflow):
        results = {}

        def outputs(node_id):
            if node_id in results:
                return results[node_id]
            node = workflow[node_id]
            key = json.dumps(node, sort_keys=True)
            if "Loader" in node["class_type"] and key in loaded:
                return loaded[key]
            args = {k: outputs(v[0])[v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()}
            cls = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
            with torch.inference_mode():
                results[node_id] = cls.execute(**args).args if hasattr(cls, "execute") else getattr(cls(), cls.FUNCTION)(**args)
            if "Loader" in node["class_type"]:
                loaded[key] = results[node_id]
            return results[node_id]

        found = {}
        for node_id, node in workflow.items():
            if node["class_type"] not in ("PreviewImage", "SaveImage"):
                found.update(named_tensors(node_id, outputs(node_id)))
        return found

    folder = os.path.join(options.out, "comfyui")
    os.makedirs(folder, exist_ok=True)
    for path in options.cases:
        safetensors.torch.save_file(run(json.load(open(path))), os.path.join(folder, os.path.basename(path).removesuffix(".json") + ".safetensors"))
        print("ComfyUI:", os.path.basename(path), flush=True)


def compare(options, paths):
    """Prints the largest differences; those of pictures in 255ths, all others relative to the largest value."""
    import safetensors.torch
    import torch
    worst = {}
    for path in paths:
        name = os.path.basename(path).removesuffix(".json")
        workflow = json.load(open(path))
        ours = safetensors.torch.load_file(os.path.join(options.out, "distorch", name + ".safetensors"))
        theirs = safetensors.torch.load_file(os.path.join(options.out, "comfyui", name + ".safetensors"))
        line = []
        for key, wanted in theirs.items():
            if key not in ours:
                sys.exit(f"{name}: {key} is missing in distorch's")
            got = ours[key].reshape(-1)
            if got.numel() != wanted.numel():
                sys.exit(f"{name}: {key} has shape {list(ours[key].shape)}, not {list(wanted.shape)}")
            if not (torch.isfinite(got).all() and torch.isfinite(wanted).all()):
                sys.exit(f"{name}: {key} holds numbers that are not finite")
            apart = float((got - wanted.reshape(-1)).abs().max())
            kind = workflow[key.split(".")[0]]["class_type"]
            if kind.startswith(("VAEDecode", "LoadImage")):
                label, apart = "picture", 255 * apart
            else:
                label, apart = "text" if wanted.dim() < 4 else "latent", apart / max(1e-12, float(wanted.abs().max()))
            worst[label] = max(worst.get(label, 0), apart)
            line.append(f"{key} {apart:.1e}")
        print(f"  {name}: " + ", ".join(line), flush=True)
    return worst


def workflows_of(case, folder, count):
    if case.endswith(".json"):
        return [os.path.abspath(case)]
    paths = []
    for index, prompt in enumerate(PROMPTS[:count]):
        paths.append(os.path.join(folder, f"{case}_{index}.json"))
        with open(paths[-1], "w") as file:
            json.dump(FAMILIES[case][1](prompt, 1000 + 77 * index), file)
    return paths


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", help="folder of run_and_keep and make_random_model")
    parser.add_argument("--models", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--input")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="only the first so many")
    parser.add_argument("--reference", action="store_true", help="only ComfyUI's part; the cases are workflows")
    parser.add_argument("cases", nargs="+")
    options = parser.parse_args()
    for key in ("models", "out", "input"):
        if getattr(options, key):
            setattr(options, key, os.path.abspath(getattr(options, key)))
    if options.reference:
        return reference(options)
    os.makedirs(options.out, exist_ok=True)
    # An application at a time, so that the two need not fit into memory together.
    for case in options.cases:
        if options.make and case in FAMILIES:
            for kind, size, path in FAMILIES[case][0]:
                full = os.path.join(options.models, path)
                blocks = [b for b in ("Q8_0", "Q4_0", "Q4_K") if path.endswith(b + ".gguf")]
                if not os.path.exists(full):
                    subprocess.run([os.path.join(options.bin, "make_random_model"), kind, full, "--size", size,
                                    *(["--dtype", *blocks] if blocks else [])], check=True)
        paths = workflows_of(case, options.out, options.prompts)
        more = ["--input", options.input] if options.input else []
        subprocess.run([sys.executable, os.path.abspath(__file__), "--reference", "--models", options.models, "--out", options.out, *more, *paths], check=True)
        subprocess.run([os.path.join(options.bin, "run_and_keep"), "--models", options.models, "--force-fp32", "--device", "cpu", *more,
                        os.path.join(options.out, "distorch"), *paths], check=True)
        worst = compare(options, paths)
        print(f"{os.path.basename(case)}: {len(paths)} workflows, largest difference: " + ", ".join(
            f"{label} {apart:.2f} of 255" if label == "picture" else f"{label} {apart:.1e}" for label, apart in sorted(worst.items())), flush=True)


if __name__ == "__main__":
    main()
