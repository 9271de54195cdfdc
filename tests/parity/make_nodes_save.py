"""nodes_save.json: what ComfyUI's saving nodes write of the tiny models: names, shapes, metadata, and two sums of each tensor's numbers."""
import json
import logging
import os
import shutil
import tempfile

import comfy_nodes
from comfy_nodes import Graph, comfy_env, run, slot
import folder_paths
import safetensors
import torch

SD1, SD2, XL, OTHER, REFINER = (f"tiny_{n}.safetensors" for n in ("sd1", "sd2", "sdxl", "sdxl_b", "refiner"))


def sums(t):
    """Of absolute values, and with weights that tell places apart."""
    t = t.flatten().double()
    return [float(f"{float(x):.7g}") for x in (t.abs().sum(), (t * torch.cos(torch.arange(len(t)).double())).sum())]


def is_told_elsewhere(case, name):
    """Cases about what lies beside a network of which another one lists the names."""
    return case in ("edm", "zsnr", "refiner") and name.startswith("model.diffusion_model.")


def is_filled_in(name, t):
    """What ComfyUI's text encoders have where the file has nothing: a projection that changes nothing, an unused scale."""
    return name.endswith("logit_scale") or not torch.isfinite(t).all() or ("text_projection" in name and t.ndim == 2 and t.shape[0] == t.shape[1] and
                                            torch.equal(t, torch.eye(len(t))))


class Cases:
    def __init__(self):
        self.list = []

    def add(self, name, graph, node):
        folder = tempfile.mkdtemp()
        folder_paths.set_output_directory(folder)
        self.evaluate(graph, node)
        files = {}
        for root, _, names in os.walk(folder):
            for file in sorted(names):
                with safetensors.safe_open(os.path.join(root, file), "pt") as f:
                    tensors = {k: f.get_tensor(k) for k in f.keys()}
                    metadata = {k: v for k, v in (f.metadata() or {}).items() if k != "prompt"}
                path = os.path.relpath(os.path.join(root, file), folder)
                files[path] = {"metadata": metadata, "tensors": {
                    k: [list(t.shape), *sums(t)] for k, t in sorted(tensors.items()) 
                    if not is_filled_in(k, t) and not is_told_elsewhere(name, k)}}
                print(name, path, len(tensors), "tensors", metadata)
        shutil.rmtree(folder)
        self.list.append({"name": name, "workflow": graph.nodes, "files": files})

    def evaluate(self, graph, node):
        inputs = {k: v for k, v in graph.nodes[node[0]]["inputs"].items()}
        value = run({k: n for k, n in graph.nodes.items() if k != node[0]})
        cls = comfy_nodes.nodes.NODE_CLASS_MAPPINGS[graph.nodes[node[0]]["class_type"]]
        with torch.inference_mode():
            getattr(cls(), cls.FUNCTION)(**{k: value(*v) if isinstance(v, list) else v for k, v in inputs.items()})

    def save(self):
        path = os.path.join(comfy_env.HERE, "nodes_save.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write('{"cases": [\n' + ",\n".join(json.dumps(c) for c in self.list) + "\n]}\n")
        print(os.path.getsize(path), "bytes")


def load(g, name, lora=None):
    node = g.add("CheckpointLoaderSimple", ckpt_name=name)
    model, clip, vae = node, slot(node, 1), slot(node, 2)
    if lora:
        node = g.add("LoraLoader", model=model, clip=clip, lora_name=lora, strength_model=0.8, strength_clip=0.6)
        model, clip = node, slot(node, 1)
    return model, clip, vae


if __name__ == "__main__":
    logging.disable(logging.INFO)
    cases = Cases()

    g = Graph()
    model, clip, vae = load(g, SD1, "kohya.safetensors")
    cases.add("sd1", g, g.add("CheckpointSave", model=model, clip=clip, vae=vae, filename_prefix="checkpoints/one"))

    g = Graph()
    model, clip, vae = load(g, SD2, "kohya_sd2.safetensors")
    cases.add("sd2", g, g.add("CheckpointSave", model=model, clip=clip, vae=vae, filename_prefix="two"))

    g = Graph()
    (model, clip, vae), (other, other_clip, _) = load(g, XL, "sdxl_kohya.safetensors"), load(g, OTHER)
    merged = g.add("ModelMergeSimple", model1=model, model2=other, ratio=0.4)
    clips = g.add("CLIPMergeSimple", clip1=clip, clip2=other_clip, ratio=0.7)
    cases.add("sdxl", g, g.add("CheckpointSave", model=merged, clip=clips, vae=vae, filename_prefix="three"))

    g = Graph()
    model, clip, vae = load(g, XL, "sdxl_diffusers.safetensors")
    cases.add("clip", g, g.add("CLIPSave", clip=clip, filename_prefix="clip/four"))

    g = Graph()
    model, clip, vae = load(g, REFINER)
    cases.add("refiner", g, g.add("CheckpointSave", model=model, clip=clip, vae=vae, filename_prefix="five"))

    g = Graph()
    model, clip, vae = load(g, SD1)
    cases.add("vae", g, g.add("VAESave", vae=vae, filename_prefix="vae/six"))

    for name, node, settings in (("edm", "ModelSamplingContinuousEDM", dict(sampling="v_prediction", sigma_max=100.0, sigma_min=0.01)),
                                 ("zsnr", "ModelSamplingDiscrete", dict(sampling="v_prediction", zsnr=True))):
        g = Graph()
        model, clip, vae = load(g, SD2)
        model = g.add(node, model=model, **settings)
        cases.add(name, g, g.add("ModelSave", model=model, filename_prefix="models/" + name))
    cases.save()
