"""nodes_newer_basics.*: nodes that ComfyUI 0.3.64 does not have, run by the classes of 0.33 (COMFYUI_DIR names a checkout of that)."""
from make_image_nodes import Small  # first: it stands in for the server
import comfy_nodes
from comfy_nodes import slot
from make_nodes import Cases

EXTRAS = ("images", "mask", "post_processing", "latent", "string", "math", "resolution", "number_convert",
          "logic", "primitive")


def resize_cases(cases):
    g, outputs = Small(), {}
    for key, image, kind in (("image", g.a, "image"), ("mask", g.mask, "mask")):
        def resize(name, method="area", **inputs):
            outputs[f"{key}_{name}"] = (g.add("ResizeImageMaskNode", input=image, scale_method=method, **{
                "resize_type" + ("." + k if k != "type" else ""): v for k, v in inputs.items()}), kind)

        for crop in ("center", "disabled"):
            resize("size_" + crop, type="scale dimensions", width=9, height=11, crop=crop)
            resize("match_" + crop, "bilinear", type="match size", match=g.b, crop=crop)
        resize("width0", "bicubic", type="scale dimensions", width=0, height=5, crop="center")
        resize("both0", type="scale dimensions", width=0, height=0, crop="center")
        resize("by", type="scale by multiplier", multiplier=0.37)
        resize("longer", type="scale longer dimension", longer_size=20)
        resize("shorter", type="scale shorter dimension", shorter_size=7)
        resize("width", type="scale width", width=20)
        resize("height", type="scale height", height=21)
        resize("multiple", type="scale to multiple", multiple=5)
        resize("multiple_none", type="scale to multiple", multiple=13)
    small = g.add("ImageScale", image=g.a, upscale_method="area", width=3, height=2, crop="disabled")
    outputs["total"] = (g.add("ResizeImageMaskNode", **{
        "input": small, "resize_type": "scale total pixels", "resize_type.megapixels": 0.01,
        "scale_method": "nearest-exact"}), "image")
    outputs["batch"] = (g.add("BatchImagesNode", **{"images.image0": g.b, "images.image2": g.a}), "image")
    outputs["batch_masks"] = (g.add("BatchMasksNode", **{"masks.mask0": g.other, "masks.mask1": g.mask}), "mask")
    outputs["batch_latents"] = (g.add("BatchLatentsNode", **{
        "latents.latent0": g.small_latent, "latents.latent1": g.latent}), "latent")
    outputs["crop"] = (g.add("ImageCropV2", image=g.a, crop_region={"x": 3, "y": 4, "width": 5, "height": 60}), "image")
    for dim, size in (("x", 4), ("y", 5), ("t", 2)):
        outputs["cut_" + dim] = (g.add("LatentCutToBatch", samples=g.latent, dim=dim, slice_size=size), "latent")
    cases.add("resize", g, **outputs)


def chosen(name, choice):
    """A node that takes a choice without inputs of its own as a list of one."""
    node = comfy_nodes.nodes.NODE_CLASS_MAPPINGS[name]

    class Node:
        @staticmethod
        def execute(**inputs):
            value = inputs[choice]
            return node.execute(**{**inputs, choice: value if isinstance(value, dict) else {choice: value}})

    comfy_nodes.nodes.NODE_CLASS_MAPPINGS[name] = Node


def color_cases(cases):
    chosen("ColorTransfer", "source_stats")
    g, outputs = Small(), {}
    frames = g.add("BatchImagesNode", **{"images.image0": g.a, "images.image1": g.b})
    others = g.add("BatchImagesNode", **{"images.image0": g.b, "images.image1": g.a})
    for method in ("reinhard_lab", "mkl_lab", "histogram"):
        for stats, more in (("per_frame", {}), ("uniform", {}), ("target_frame", {"source_stats.target_index": 1})):
            for strength, reference in ((1.0, g.b), (0.4, others)):
                node = g.add("ColorTransfer", image_target=frames, image_ref=reference, method=method, strength=strength,
                             **{"source_stats": stats, **more})
                outputs[f"{method}_{stats}_{strength}"] = (node, "image")
    cases.add("colors", g, **outputs)


def crop_cases(cases):
    g, outputs = Small(), {}
    for k, (width, height, pad, grow, color) in enumerate(((64, 64, 1.0, 0, "#000000"), (72, 64, 1.5, 2, "#ff8000"))):
        node = g.add("ImageCropToMask", images=g.a, masks=g.mask, width=width, height=height, pad_factor=pad, grow_mask=grow, background=color)
        outputs[f"crop_{k}"] = (node, "image")
    cases.add("crop_to_mask", g, **outputs)


EXPRESSIONS = ["a + b", "a - b * 2 ** 3 ** 0", "-a ** 2", "a // b", "-a // b", "a % -b", "-a % b", "a / b", "round(b)", "round(2.5) + round(3.5)",
               "round(2.675, 2)", "round(a * 1000, -3)", "ceil(b / 3) * floor(a / 2)", "min(a, b) + max(values)", "sum(values) + sum(a, b, 1)",
               "a if a > b else b", "a > b and b or 7", "1 < a < 10 == True", "not a", "a == 7 and not b == 3", "int(b) & 3 | 8 ^ 1", "1 << 5 >> 2", "~int(a)",
               "sqrt(a) + log(a) + log(a, 2) + log2(b) + log10(b)", "sin(a) + cos(b) - tan(1)", "pow(2, 10) + pow(2, -1)", "abs(-b) + float(a)",
               "values[0] * values[-1]", "(a + b) * (a - b)", "1e3 + 0x1F + 1_000 + .5", "True + True", "int(-7.9)", "a != b", "b >= 3.25 or 1 / 0"]


def number_cases(cases):
    g, outputs = Small(), {}
    a, b = g.add("PrimitiveInt", value=7), g.add("PrimitiveFloat", value=3.25)
    for k, expression in enumerate(EXPRESSIONS):
        node = g.add("ComfyMathExpression", **{"expression": expression, "values.a": a, "values.b": b})
        for n in range(3):
            outputs[f"math_{k}_{n}"] = (slot(node, n), "value")
    for k, value in enumerate((True, 12, -3.9, " 42 ", "-1.5e2", "007")):
        node = g.add("ComfyNumberConvert", value=value)
        outputs[f"convert_{k}_0"], outputs[f"convert_{k}_1"] = (node, "value"), (slot(node, 1), "value")
    for k, (ratio, megapixels, multiple) in enumerate((("16:9 (Widescreen)", 1.0, 8), ("2:3 (Portrait Photo)", 0.5, 64),
                                                       ("1:1 (Square)", 2.3, 20))):
        node = g.add("ResolutionSelector", aspect_ratio=ratio, megapixels=megapixels, multiple=multiple)
        outputs[f"size_{k}_0"], outputs[f"size_{k}_1"] = (node, "value"), (slot(node, 1), "value")
    text = '{"a": "x", "b": [1, 2.0, true, null], "c": null, "d": 1.50}'
    for key in "abcde":
        outputs["json_" + key] = (g.add("JsonExtractString", json_string=text, key=key), "value")
    outputs["json_bad"] = (g.add("JsonExtractString", json_string="{", key="a"), "value")
    for switch in (True, False):
        on = g.add("ComfySwitchNode", switch=switch, on_true=a, on_false=b)
        outputs[f"switch_{switch}"] = (on, "value")
        outputs[f"not_{switch}"] = (g.add("ComfyNotNode", value=switch), "value")
        outputs[f"and_{switch}"] = (g.add("ComfyAndNode", **{"values.value0": a, "values.value1": switch}), "value")
        outputs[f"or_{switch}"] = (g.add("ComfyOrNode", **{"values.value0": switch, "values.value3": ""}), "value")
    cases.add("numbers", g, **outputs)


if __name__ == "__main__":
    for extra in EXTRAS:
        comfy_nodes.register(extra)
    cases = Cases("nodes_newer_basics")
    for step in (resize_cases, number_cases, color_cases, crop_cases):
        step(cases)
    cases.save()
