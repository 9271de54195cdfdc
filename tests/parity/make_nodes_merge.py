"""nodes_merge.*: merges by blocks, and of text encoders, of the tiny SDXL and another of its shapes, by ComfyUI's own node classes."""
import logging

import comfy_nodes
from comfy_nodes import slot
from make_nodes import NEGATIVE, SHORT, Cases
from make_nodes_sdxl import BASE, XL

OTHER = "tiny_sdxl_b.safetensors"
for extra in ("model_merging_model_specific",):
    comfy_nodes.register(extra)


def sdxl_ratios():
    names = ["time_embed.", "label_emb.", *(f"input_blocks.{i}" for i in range(9)), *(f"middle_block.{i}" for i in range(3)),
             *(f"output_blocks.{i}" for i in range(9)), "out."]
    return {name: round((i * 7 % 11) / 10, 2) for i, name in enumerate(names)}


def model_cases(cases):
    def case(name, node, loras=False, **ratios):
        g = XL()
        (model, clip), (other, _) = g.load(BASE), g.load(OTHER)
        if loras:
            model = g.add("LoraLoaderModelOnly", model=model, lora_name="sdxl_kohya.safetensors", strength_model=0.8)
            other = g.add("LoraLoaderModelOnly", model=other, lora_name="sdxl_diffusers.safetensors", strength_model=0.5)
        merged = g.add(node, model1=model, model2=other, **ratios)
        cases.add(name, g, latent=(g.sample(merged, g.text(clip, SHORT), g.text(clip, NEGATIVE)), "latent"))

    blocks = dict(input=0.2, middle=0.9, out=0.5)
    case("blocks", "ModelMergeBlocks", **blocks)
    case("blocks_loras", "ModelMergeBlocks", True, **blocks)
    case("sdxl", "ModelMergeSDXL", True, **sdxl_ratios())
    case("all_first", "ModelMergeBlocks", input=1.0, middle=1.0, out=1.0)


def text_cases(cases):
    def case(name, node, loras=False, **values):
        g = XL()
        (model, clip), (other_model, other) = g.load(BASE), g.load(OTHER)
        if loras:
            lora = lambda m, c, f: slot(g.add("LoraLoader", model=m, clip=c, lora_name=f, strength_model=0.0, strength_clip=0.7), 1)
            clip, other = lora(model, clip, "sdxl_kohya.safetensors"), lora(other_model, other, "sdxl_diffusers.safetensors")
        text = g.text(g.add(node, clip1=clip, clip2=other, **values), SHORT)
        cases.add(name, g, cond=(text, "cond"), pooled=(text, "pooled"))

    case("clip_simple", "CLIPMergeSimple", ratio=0.35)
    case("clip_simple_loras", "CLIPMergeSimple", True, ratio=0.6)
    case("clip_add", "CLIPMergeAdd")
    case("clip_subtract", "CLIPMergeSubtract", multiplier=0.8)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    cases = Cases("nodes_merge")
    model_cases(cases)
    text_cases(cases)
    cases.save()
