"""nodes_pictures.*, nodes_masks.*, nodes_texts.*: image, mask, latent and text nodes, each run by ComfyUI's own classes on small inputs."""
import re
import sys
import types

# nodes_images wants the server only to show a text on its page.
sys.modules["server"] = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=None))

import comfy_nodes
from comfy_nodes import Graph, comfy_env, slot
from make_nodes import Cases

EXTRAS = ("images", "mask", "latent", "post_processing", "canny", "morphology", "compositing", "string")


class Small(Graph):
    """Small inputs: a (12 high, 14 wide), b (9x11), alpha (12x14 with a mask), mask (12x14)."""

    def __init__(self):
        super().__init__()
        photo = self.add("LoadImage", image="photo_alpha.png")
        load = self.add("LoadImage", image="small.png")
        self.full = load
        scale = lambda image, width, height: self.add(
            "ImageScale", image=image, upscale_method="bilinear", width=width, height=height, crop="disabled")
        self.a, self.b = scale(load, 14, 12), scale(photo, 11, 9)
        soft = scale(self.add("MaskToImage", mask=slot(photo, 1)), 14, 12)
        self.mask = self.add("ImageToMask", image=soft, channel="red")
        other = scale(self.add("MaskToImage", mask=slot(photo, 1)), 9, 8)
        self.other = self.add("ImageToMask", image=other, channel="red")
        self.latent = self.add("LoadLatent", latent="random.latent")
        self.small_latent = self.add("LatentUpscaleBy", samples=self.latent, upscale_method="bicubic", scale_by=0.6)


def image_cases(cases):
    g, outputs = Small(), {}

    def image(key, node, **inputs):
        outputs[key] = (g.add(node, **inputs), "image")
        return outputs[key][0]

    image("crop", "ImageCrop", image=g.a, width=5, height=30, x=3, y=7)
    image("crop_outside", "ImageCrop", image=g.a, width=5, height=3, x=300, y=200)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        image("flip_" + method[0], "ImageFlip", image=g.a, flip_method=method)
    for turn in ("none", "90 degrees", "180 degrees", "270 degrees"):
        image("rotate_" + turn[:3].strip(), "ImageRotate", image=g.a, rotation=turn)
    for k, direction in enumerate(("right", "down", "left", "up")):
        for match in (True, False):
            image(f"stitch_{direction}_{match}", "ImageStitch", image1=g.a, image2=g.b, direction=direction,
                  match_image_size=match, spacing_width=3 * (k % 2),
                  spacing_color=("white", "red", "black", "blue")[k])
    image("stitch_alone", "ImageStitch", image1=g.a, direction="up", match_image_size=True, spacing_width=2,
          spacing_color="green")
    for method in ("area", "lanczos"):
        image("pad_" + method, "ResizeAndPadImage", image=g.a, target_width=10, target_height=16,
              padding_color="white", interpolation=method)
    image("pad_black", "ResizeAndPadImage", image=g.a, target_width=19, target_height=7, padding_color="black",
          interpolation="bicubic")
    image("max_wide", "ImageScaleToMaxDimension", image=g.a, upscale_method="area", largest_size=9)
    turned = g.add("ImageRotate", image=g.a, rotation="90 degrees")
    image("max_high", "ImageScaleToMaxDimension", image=turned, upscale_method="bilinear", largest_size=19)
    crop = g.add("ImageCrop", image=g.a, width=4, height=1, x=2, y=2)
    image("total_pixels", "ImageScaleToTotalPixels", image=g.add("ImageScale", image=crop, upscale_method="area",
          width=2, height=3, crop="disabled"), upscale_method="nearest-exact", megapixels=0.01)
    repeat = image("repeat", "RepeatImageBatch", image=g.b, amount=3)
    batch = g.add("ImageBatch", image1=g.a, image2=g.b)
    image("from_batch", "ImageFromBatch", image=batch, batch_index=1, length=5)
    image("from_batch_late", "ImageFromBatch", image=batch, batch_index=7, length=5)
    for feathering in (0, 4, 40):
        out = g.add("ImagePadForOutpaint", image=g.a, left=8, top=0, right=0, bottom=16, feathering=feathering)
        outputs[f"outpaint_{feathering}"] = (out, "image")
        outputs[f"outpaint_{feathering}_mask"] = (slot(out, 1), "mask")
    for key, what in (("width", 0), ("height", 1), ("count", 2)):
        outputs["size_" + key] = (slot(g.add("GetImageSize", image=repeat), what), "value")
    cases.add("images", g, **outputs)


def filter_cases(cases):
    g, outputs = Small(), {}

    def image(key, node, **inputs):
        outputs[key] = (g.add(node, **inputs), "image")

    for radius, sigma in ((1, 1.0), (4, 0.3)):
        image(f"blur_{radius}", "ImageBlur", image=g.a, blur_radius=radius, sigma=sigma)
        image(f"sharpen_{radius}", "ImageSharpen", image=g.a, sharpen_radius=radius, sigma=sigma, alpha=0.7)
    for mode in ("normal", "multiply", "screen", "overlay", "soft_light", "difference"):
        image("blend_" + mode, "ImageBlend", image1=g.a, image2=g.b, blend_factor=0.7, blend_mode=mode)
    for operation in ("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"):
        for size in (3, 4):
            image(f"{operation}_{size}", "Morphology", image=g.a, operation=operation, kernel_size=size)
    image("canny", "Canny", image=g.full, low_threshold=0.4, high_threshold=0.8)
    image("canny_low", "Canny", image=g.full, low_threshold=0.1, high_threshold=0.99)
    yuv = g.add("ImageRGBToYUV", image=g.a)
    for k in range(3):
        outputs[f"yuv_{k}"] = (slot(yuv, k), "image")
    image("rgb", "ImageYUVToRGB", Y=yuv, U=slot(yuv, 1), V=slot(yuv, 2))
    image("noise", "ImageAddNoise", image=g.a, seed=2**63 + 5, strength=0.3)
    cases.add("filters", g, **outputs)


def mask_cases(cases):
    g, outputs = Small(), {}

    def mask(key, node, **inputs):
        outputs[key] = (g.add(node, **inputs), "mask")

    alpha = g.add("JoinImageWithAlpha", image=g.a, alpha=g.mask)
    outputs["join"] = (alpha, "image")
    outputs["join_resized"] = (g.add("JoinImageWithAlpha", image=g.a, alpha=g.other), "image")
    split = g.add("SplitImageWithAlpha", image=alpha)
    outputs["split"], outputs["split_mask"] = (split, "image"), (slot(split, 1), "mask")
    outputs["split_none"] = (slot(g.add("SplitImageWithAlpha", image=g.a), 1), "mask")
    for mode in ("ADD CLEAR DARKEN DST DST_ATOP DST_IN DST_OUT DST_OVER LIGHTEN MULTIPLY OVERLAY SCREEN SRC SRC_ATOP "
                 "SRC_IN SRC_OUT SRC_OVER XOR").split():
        out = g.add("PorterDuffImageComposite", source=g.b, source_alpha=g.other, destination=g.a,
                    destination_alpha=g.mask, mode=mode)
        outputs["duff_" + mode], outputs["duff_mask_" + mode] = (out, "image"), (slot(out, 1), "mask")
    for key, more in (("plain", {}), ("masked", {"mask": g.other}), ("resized", {"mask": g.mask, "resize_source": True})):
        for x, y in ((0, 0), (6, 5), (14, 20)):
            outputs[f"image_{key}_{x}"] = (g.add("ImageCompositeMasked", **{
                "destination": g.a, "source": g.b, "x": x, "y": y, "resize_source": False, **more}), "image")
            outputs[f"latent_{key}_{x}"] = (g.add("LatentCompositeMasked", **{
                "destination": g.latent, "source": g.small_latent, "x": x * 8, "y": y * 8, "resize_source": False,
                **more}), "latent")
    outputs["image_rgba"] = (g.add("ImageCompositeMasked", destination=g.a, source=alpha, x=2, y=1,
                                   resize_source=False), "image")
    for x, feather in ((0, 16), (32, 24), (80, 0)):
        outputs[f"latent_feather_{x}"] = (g.add("LatentComposite", samples_to=g.latent, samples_from=g.small_latent,
                                                x=x, y=x // 2, feather=feather), "latent")
    quantized = g.add("EmptyImage", width=4, height=3, batch_size=1, color=0x3380C8)
    stitched = g.add("ImageStitch", image1=quantized, image2=g.b, direction="right", match_image_size=False,
                     spacing_width=0, spacing_color="white")
    mask("color", "ImageColorToMask", image=stitched, color=0x3380C8)
    mask("crop", "CropMask", mask=g.mask, x=3, y=5, width=30, height=4)
    for operation in ("multiply", "add", "subtract", "and", "or", "xor"):
        mask("composite_" + operation, "MaskComposite", destination=g.mask, source=g.other, x=4, y=7,
             operation=operation)
    mask("feather", "FeatherMask", mask=g.mask, left=3, top=2, right=4, bottom=5)
    mask("feather_all", "FeatherMask", mask=g.other, left=30, top=0, right=1, bottom=40)
    for expand in (-2, 0, 3, 100):
        for tapered in (True, False):
            mask(f"grow_{expand}_{tapered}", "GrowMask", mask=g.mask, expand=expand, tapered_corners=tapered)
    mask("threshold", "ThresholdMask", mask=g.mask, value=0.4)
    cases.add("masks", g, **outputs)


def latent_cases(cases):
    g, outputs = Small(), {}

    def latent(key, node, **inputs):
        outputs[key] = (g.add(node, **inputs), "latent")
        return outputs[key][0]

    a, b = g.latent, g.small_latent
    latent("add", "LatentAdd", samples1=a, samples2=b)
    latent("subtract", "LatentSubtract", samples1=b, samples2=a)
    latent("multiply", "LatentMultiply", samples=b, multiplier=-1.7)
    latent("interpolate", "LatentInterpolate", samples1=a, samples2=b, ratio=0.3)
    same = g.add("LatentMultiply", samples=a, multiplier=0.5)
    for dim in ("x", "-x", "y", "-y"):
        latent("concat_" + dim, "LatentConcat", samples1=a, samples2=same, dim=dim)
    for dim, index, amount in (("x", 3, 4), ("y", -4, 9), ("x", -90, 2), ("y", 90, 2)):
        latent(f"cut_{dim}_{index}", "LatentCut", samples=a, dim=dim, index=index, amount=amount)
    batch = latent("batch", "LatentBatch", samples1=b, samples2=a)
    latent("batch_add", "LatentAdd", samples1=batch, samples2=a)
    latent("blend", "LatentBlend", samples1=a, samples2=b, blend_factor=0.3)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        latent("flip_" + method[0], "LatentFlip", samples=b, flip_method=method)
    for turn in ("none", "90 degrees", "180 degrees", "270 degrees"):
        latent("rotate_" + turn[:3].strip(), "LatentRotate", samples=b, rotation=turn)
    latent("crop", "LatentCrop", samples=a, width=64, height=128, x=40, y=8)
    latent("crop_late", "LatentCrop", samples=a, width=80, height=64, x=400, y=800)
    cases.add("latents", g, **outputs)


TEXT = "Der Straßenhändler ruft: 2 ὈΔΥΣΣΕΎΣ, 3 ﬁsche!\n\tZeile zwei  "
PATTERNS = [r"\d+", r"(?i)stra(ss|ß)E", r"(\w)(\w+)", r"^\s*(\w+)", r"(?<=ruft: )\d", r"\bz\w*", r"[^\W\d_]+(?=,)", r"(a|e)*?r",
            r"(?P<first>\w)(?P=first)?", r"x*", r"(", r"e.*?e", r"e.+$", r"\Z", r"(?:ei|e)(l|)", r"(?>\w+)e", r"[à-ÿﬁ]",
            r"\w{3,5}", r"(?s:.)\Z", r"(?!D)\b\w+", r"\u00df", r"(?<!\w)[A-Z]"]


def re_flags(flags):
    return (re.I * flags["case_insensitive"]) | (re.M * flags["multiline"]) | (re.S * flags["dotall"])


def text_cases(cases):
    g, outputs = Small(), {}

    def value(key, node, **inputs):
        outputs[key] = (g.add(node, **inputs), "value")

    value("concatenate", "StringConcatenate", string_a="a", string_b="ü", delimiter=", ")
    for start, end in ((0, 5), (-4, -1), (4, 2), (3, 999), (-999, 3)):
        value(f"substring_{start}_{end}", "StringSubstring", string=TEXT, start=start, end=end)
    value("length", "StringLength", string=TEXT)
    for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case"):
        value("case_" + mode[:2], "CaseConverter", string=TEXT + " ǆ İ they're ΟΔΟΣ.", mode=mode)
    for mode in ("Both", "Left", "Right"):
        value("trim_" + mode, "StringTrim", string="\u2003 \n" + TEXT, mode=mode)
    for find, replace in (("e", "EE"), ("", "-"), ("ruft", ""), ("none", "x")):
        value("replace_" + find, "StringReplace", string=TEXT, find=find, replace=replace)
    for substring, exact in (("STRASSE", False), ("RUFT", False), ("RUFT", True), ("", True)):
        value(f"contains_{substring}_{exact}", "StringContains", string=TEXT, substring=substring, case_sensitive=exact)
    for mode in ("Starts With", "Ends With", "Equal"):
        for exact in (True, False):
            value(f"compare_{mode}_{exact}", "StringCompare", string_a="Ähre", string_b="äh" if "S" in mode else "RE" if "n" in mode else "ÄHRE",
                  mode=mode, case_sensitive=exact)
    for k, pattern in enumerate(PATTERNS):
        flags = dict(case_insensitive=k % 2 == 0, multiline=k % 3 == 0, dotall=k % 4 == 0)
        value(f"match_{k}", "RegexMatch", string=TEXT, regex_pattern=pattern, **flags)
        # ComfyUI fails where a group took no part.
        whole = pattern == "(" or all(m.group(1) is not None for m in re.finditer(pattern, TEXT, re_flags(flags)) if m.groups())
        for mode in ("First Match", "All Matches", "First Group", "All Groups")[:4 if whole else 2]:
            value(f"extract_{k}_{mode}", "RegexExtract", string=TEXT, regex_pattern=pattern, mode=mode, group_index=1, **flags)
        if pattern != "(":
            value(f"sub_{k}", "RegexReplace", string=TEXT, regex_pattern=pattern, replace=r"<\g<0>>\n", count=k % 3, **flags)
    value("sub_groups", "RegexReplace", string="John Smith", regex_pattern=r"(?P<a>\w+) (\w+)", replace=r"\2, \g<a>")
    cases.add("texts", g, **outputs)


if __name__ == "__main__":
    for extra in EXTRAS:
        comfy_nodes.register(extra)
    for name, steps in (("nodes_pictures", (image_cases, filter_cases)), ("nodes_masks", (mask_cases, latent_cases)),
                        ("nodes_texts", (text_cases,))):
        cases = Cases(name)
        for step in steps:
            step(cases)
        cases.save()
