"""nodes_*.*: workflows run by ComfyUI's own node classes on the tiny models; inputs/ and loras/."""
import json
import logging
import os

import comfy_nodes
from comfy_nodes import Graph, comfy_env, run, slot
import numpy as np
import safetensors.torch
import torch
from PIL import Image

HERE = comfy_env.HERE
SD1, SD2 = "tiny_sd1.safetensors", "tiny_sd2.safetensors"
SHORT = "a photo of a (red:1.3) cat, [blue] hat"
LONG = ", ".join(f"item number {i} of many" for i in range(22))
NEGATIVE = "blurry, (low quality:1.2)"


def write_inputs():
    """A photo with alpha (76 high, 100 wide), one without, and a latent, all smooth or seeded."""
    os.makedirs(os.path.join(HERE, "inputs"), exist_ok=True)
    y, x = np.mgrid[0:76, 0:100].astype(np.float64)
    rgb = [127 + 90 * np.sin(x / 9 + k) + 37 * np.cos(y / 6 - k * 2) for k in range(3)]
    alpha = 255 * np.clip(((x - 55) / 30) ** 2 + ((y - 40) / 24) ** 2 - 0.4, 0, 1)
    rgba = np.clip(np.rint(np.stack([*rgb, alpha], -1)), 0, 255).astype(np.uint8)
    save = lambda a, name: Image.fromarray(a).save(os.path.join(HERE, "inputs", name), optimize=True)
    save(rgba, "photo_alpha.png")
    save(np.ascontiguousarray(rgba[:64, :96, :3]), "photo.png")
    save(np.ascontiguousarray(rgba[8:68:2, 4:76:2, :3]), "small.png")
    g = torch.Generator().manual_seed(9)
    latent = {"latent_tensor": torch.randn(1, 4, 10, 14, generator=g) * 4,
              "latent_format_version_0": torch.tensor([])}
    safetensors.torch.save_file(latent, os.path.join(HERE, "inputs", "random.latent"))


def lora_pair(name, out, into, rank, kernel=1, conv=False):
    g = torch.Generator().manual_seed(len(name) * 1009 + out + into + rank)
    up, down = torch.randn(out, rank, generator=g) * 0.35, torch.randn(rank, into, generator=g) * 0.1
    if conv:
        down = torch.randn(rank, into, kernel, kernel, generator=g) * 0.1
        up = up[:, :, None, None]
    return up.contiguous(), down.contiguous()


def write_loras():
    """kohya names with alpha (linear, 1x1 and 3x3 convolutions, text), two diffusers spellings, original names."""
    os.makedirs(os.path.join(HERE, "loras"), exist_ok=True)
    save = lambda t, name: safetensors.torch.save_file(t, os.path.join(HERE, "loras", name))
    t = {}

    def kohya(name, out, into, rank, alpha=None, **kw):
        t[name + ".lora_up.weight"], t[name + ".lora_down.weight"] = lora_pair(name, out, into, rank, **kw)
        if alpha is not None:
            t[name + ".alpha"] = torch.tensor(float(alpha))

    block = "_transformer_blocks_0_"
    down = "lora_unet_down_blocks_0_attentions_1"
    kohya(down + block + "attn1_to_q", 32, 32, 4, 2)
    kohya(down + block + "attn2_to_k", 32, 64, 4, 4)
    kohya(down + block + "attn2_to_out_0", 32, 32, 2)
    kohya(down + block + "ff_net_0_proj", 256, 32, 4, 1)
    kohya(down + block + "ff_net_2", 32, 128, 4, 8)
    kohya(down + "_proj_in", 32, 32, 4, 2, conv=True)
    kohya(down + "_proj_out", 32, 32, 4, 2, conv=True)
    kohya("lora_unet_mid_block_attentions_0" + block + "attn1_to_v", 128, 128, 4, 2)
    kohya("lora_unet_up_blocks_3_attentions_2" + block + "attn2_to_v", 32, 64, 4, 2)
    kohya("lora_unet_up_blocks_1_resnets_0_conv1", 128, 256, 2, 1, kernel=3, conv=True)
    kohya("lora_unet_up_blocks_2_upsamplers_0_conv", 64, 64, 2, 1, kernel=3, conv=True)
    kohya("lora_unet_down_blocks_1_downsamplers_0_conv", 64, 64, 2, 1, kernel=3, conv=True)
    kohya("lora_unet_down_blocks_2_resnets_0_time_emb_proj", 128, 128, 2, 1)
    kohya("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 64, 64, 4, 2)
    kohya("lora_te_text_model_encoder_layers_1_self_attn_v_proj", 64, 64, 4, 2)
    kohya("lora_te_text_model_encoder_layers_2_mlp_fc1", 256, 64, 4, 2)
    save(t, "kohya.safetensors")

    t, block = {}, ".transformer_blocks.0."
    for name, out, into in (("unet.down_blocks.0.attentions.0" + block + "attn1.processor.to_q", 32, 32),
                            ("unet.mid_block.attentions.0" + block + "attn2.processor.to_v", 128, 64),
                            ("unet.up_blocks.1.attentions.1" + block + "attn1.processor.to_out", 128, 128)):
        t[name + "_lora.up.weight"], t[name + "_lora.down.weight"] = lora_pair(name, out, into, 4)
    save(t, "diffusers_processor.safetensors")

    t = {}
    for name, out, into in (("diffusion_model.input_blocks.1.1" + block + "attn1.to_k", 32, 32),
                            ("diffusion_model.output_blocks.5.1" + block + "ff.net.2", 128, 512),
                            ("text_encoder.text_model.encoder.layers.0.self_attn.k_proj", 64, 64),
                            ("text_encoder.text_model.encoder.layers.2.mlp.fc2", 64, 256)):
        t[name + ".lora_B.weight"], t[name + ".lora_A.weight"] = lora_pair(name, out, into, 4)
    t["diffusion_model.middle_block.0.out_layers.3.diff_b"] = torch.linspace(-0.2, 0.2, 128)
    save(t, "original_names.safetensors")

    t = {}
    kohya("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 64, 64, 4, 2)
    kohya("lora_unet_down_blocks_1_attentions_0_proj_in", 64, 64, 4, 2)
    for part in ("q", "k", "v", "out"):
        kohya(f"lora_te_text_model_encoder_layers_0_self_attn_{part}_proj", 128, 128, 4, 2)
    kohya("lora_te_text_model_encoder_layers_1_mlp_fc2", 128, 512, 4, 2)
    save(t, "kohya_sd2.safetensors")


def write_adapters():
    """Every kind of adapter but plain LoRA, on layers that kohya.safetensors changes too and on others."""
    t = {}

    def put(name, **parts):
        for key, shape in parts.items():
            if isinstance(shape, (tuple, list)):
                g = torch.Generator().manual_seed(sum(map(ord, name + key)))
                value = torch.randn(*shape, generator=g) * 0.1
                t[f"{name}.{key}"] = value.abs() + 0.8 if key == "dora_scale" else value
            else:
                t[f"{name}.{key}"] = torch.tensor(float(shape))

    block = "_transformer_blocks_0_"
    down, mid = "lora_unet_down_blocks_0_attentions_1", "lora_unet_mid_block_attentions_0"
    put(down + block + "attn1_to_q", hada_w1_a=(32, 3), hada_w1_b=(3, 32), hada_w2_a=(32, 3), hada_w2_b=(3, 32), alpha=2)
    put(down + block + "attn2_to_k", lokr_w1=(4, 8), lokr_w2_a=(8, 2), lokr_w2_b=(2, 8), alpha=1)
    put(down + block + "ff_net_2", **{"a1.weight": (128, 2), "a2.weight": (2, 128), "b1.weight": (32, 2),
                                      "b2.weight": (2, 128), "alpha": 1})
    put(down + "_proj_in", oft_blocks=(8, 4, 4), alpha=0)
    put(down + "_proj_out", **{"lora_up.weight": (32, 4, 1, 1), "lora_down.weight": (4, 32, 1, 1), "alpha": 2,
                               "dora_scale": (1, 32, 1, 1)})
    put(mid + block + "attn1_to_v", **{"lora_up.weight": (128, 4), "lora_down.weight": (4, 128), "dora_scale": (128, 1)})
    put(mid + block + "attn1_to_out_0", oft_blocks=(3, 16, 8, 8), alpha=1)
    put(mid + block + "norm1", w_norm=(128,), b_norm=(128,))
    put("lora_unet_up_blocks_1_resnets_0_conv1", hada_w1_a=(2, 128), hada_w1_b=(2, 256), hada_t1=(2, 2, 3, 3),
        hada_w2_a=(2, 128), hada_w2_b=(2, 256), hada_t2=(2, 2, 3, 3), alpha=2)
    put("lora_unet_up_blocks_2_upsamplers_0_conv", lokr_w1=(4, 4), lokr_w2=(16, 16, 3, 3))
    put("lora_unet_down_blocks_1_downsamplers_0_conv", **{
        "lora_up.weight": (64, 2, 1, 1), "lora_down.weight": (2, 64, 1, 1), "lora_mid.weight": (2, 2, 3, 3),
        "dora_scale": (1, 64, 1, 1)})
    put("lora_unet_down_blocks_2_resnets_0_time_emb_proj", diff=(128, 128), diff_b=(128,))
    put("diffusion_model.middle_block.0.emb_layers.1", set_weight=(128, 128))
    put("diffusion_model.middle_block.0.in_layers.2.bias", diff=(128,))
    text = "lora_te_text_model_encoder_layers_"
    put(text + "0_self_attn_q_proj", **{"lora_up.weight": (64, 4), "lora_down.weight": (4, 64), "dora_scale": (1, 64)})
    put(text + "1_self_attn_v_proj", hada_w1_a=(64, 3), hada_w1_b=(3, 64), hada_w2_a=(64, 3), hada_w2_b=(3, 64))
    put(text + "2_mlp_fc1", oft_blocks=(32, 8, 8))
    put("text_encoders.clip_l.transformer.text_model.embeddings.position_embedding",
        **{"lora_up.weight": (77, 1), "lora_down.weight": (1, 64), "dora_scale": (1, 64)})
    safetensors.torch.save_file(t, os.path.join(HERE, "loras", "all_kinds.safetensors"))


class Cases:
    def __init__(self, file):
        self.file, self.list, self.tensors = file, [], {}

    def add(self, name, graph, **outputs):
        """outputs: NAME=(reference, kind). kind: image, mask, latent, noise_mask, cond, pooled, sigmas, value (a number or text), number."""
        value, described = run(graph.nodes), {}
        for key, (reference, kind) in outputs.items():
            v = value(*reference)
            if kind == "value":
                described[key] = {"node": reference, "kind": kind, "value": v}
                continue
            if kind in ("latent", "noise_mask"):
                v = v["samples" if kind == "latent" else "noise_mask"]
            elif kind == "cond":
                assert len(v) == 1
                v = v[0][0]
            elif kind == "number":
                v = torch.tensor([float(v)])
            elif kind == "pooled":
                v = v[0][1]["pooled_output"]
            assert torch.isfinite(v).all(), name
            self.tensors[f"{name}/{key}"] = v.float()
            described[key] = {"node": reference, "kind": kind}
        self.list.append({"name": name, "workflow": graph.nodes, "outputs": described})

    def save(self):
        comfy_env.save(self.file, self.tensors, None)
        with open(os.path.join(HERE, self.file + ".json"), "w", encoding="utf-8") as f:
            f.write('{"cases": [\n' + ",\n".join(json.dumps(c) for c in self.list) + "\n]}\n")


def image_cases():
    cases = Cases("nodes_image")
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"):
        for crop in ("disabled", "center"):
            g = Graph()
            image = g.add("LoadImage", image="small.png")
            up = g.add("ImageScale", image=image, upscale_method=method, width=50, height=32, crop=crop)
            down = g.add("ImageScale", image=image, upscale_method=method, width=18, height=22, crop=crop)
            cases.add(f"scale_{method}_{crop}", g, up=(up, "image"), down=(down, "image"))
    g = Graph()
    image = g.add("LoadImage", image="small.png")
    cases.add("scale_keep_aspect", g,
              width0=(g.add("ImageScale", image=image, upscale_method="bilinear", width=0, height=20, crop="center"), "image"),
              height0=(g.add("ImageScale", image=image, upscale_method="bilinear", width=25, height=0, crop="disabled"), "image"),
              both0=(g.add("ImageScale", image=image, upscale_method="bilinear", width=0, height=0, crop="disabled"), "image"))
    g = Graph()
    image = g.add("LoadImage", image="photo_alpha.png")
    cases.add("load_alpha", g, image=(image, "image"), mask=(slot(image, 1), "mask"))
    g = Graph()
    image = g.add("LoadImage", image="small.png")
    cases.add("load_rgb", g, image=(image, "image"), mask=(slot(image, 1), "mask"))
    g = Graph()
    cases.add("empty_image", g, image=(g.add("EmptyImage", width=9, height=5, batch_size=2, color=0x3380C8), "image"))
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "bislerp"):
        for crop in ("disabled", "center"):
            g = Graph()
            latent = g.add("LoadLatent", latent="random.latent")
            up = g.add("LatentUpscale", samples=latent, upscale_method=method, width=176, height=104, crop=crop)
            down = g.add("LatentUpscale", samples=latent, upscale_method=method, width=64, height=72, crop=crop)
            by = g.add("LatentUpscaleBy", samples=latent, upscale_method=method, scale_by=1.5)
            cases.add(f"latent_{method}_{crop}", g, up=(up, "latent"), down=(down, "latent"), by=(by, "latent"))
    g = Graph()
    latent = g.add("LoadLatent", latent="random.latent")
    cases.add("latent_keep_aspect", g,
              width0=(g.add("LatentUpscale", samples=latent, upscale_method="bilinear", width=0, height=160, crop="disabled"), "latent"),
              height0=(g.add("LatentUpscale", samples=latent, upscale_method="bilinear", width=200, height=0, crop="disabled"), "latent"),
              load=(latent, "latent"))
    cases.save()


def vae_cases():
    cases, names = Cases("nodes_vae"), dict(ckpt_name=SD1)
    g = Graph()
    vae = slot(g.add("CheckpointLoaderSimple", **names), 2)
    latent = g.add("LoadLatent", latent="random.latent")
    cases.add("decode", g, image=(g.add("VAEDecode", samples=latent, vae=vae), "image"))
    for tile, overlap in ((64, 64), (64, 0), (96, 32)):
        g = Graph()
        vae = slot(g.add("CheckpointLoaderSimple", **names), 2)
        latent = g.add("LoadLatent", latent="random.latent")
        out = g.add("VAEDecodeTiled", samples=latent, vae=vae, tile_size=tile, overlap=overlap,
                    temporal_size=64, temporal_overlap=8)
        cases.add(f"decode_tiled_{tile}_{overlap}", g, image=(out, "image"))
    for picture in ("photo.png", "photo_alpha.png"):
        g = Graph()
        vae = slot(g.add("CheckpointLoaderSimple", **names), 2)
        image = g.add("LoadImage", image=picture)
        outputs = {"plain": (g.add("VAEEncode", pixels=image, vae=vae), "latent")}
        for tile, overlap in ((64, 0), (64, 16), (128, 32)):
            outputs[f"tiled_{tile}_{overlap}"] = (g.add(
                "VAEEncodeTiled", pixels=image, vae=vae, tile_size=tile, overlap=overlap,
                temporal_size=64, temporal_overlap=8), "latent")
        cases.add(f"encode_{picture[:-4]}", g, **outputs)
    for grow in (0, 6, 7, 20):
        g = Graph()
        vae = slot(g.add("CheckpointLoaderSimple", **names), 2)
        image = g.add("LoadImage", image="photo_alpha.png")
        out = g.add("VAEEncodeForInpaint", pixels=image, vae=vae, mask=slot(image, 1), grow_mask_by=grow)
        cases.add(f"inpaint_encode_{grow}", g, latent=(out, "latent"), mask=(out, "noise_mask"))
    cases.save()


ENCODE = {"plain": "a photo of a cat", "weights": SHORT, "empty": "", "long": LONG,
          "long_weights": LONG + ", (heavy:1.5) (light:0.4)", "negative_weight": "a (cat:-0.5) and dog",
          "zero_weight": "a (cat:0) and dog", "embedding": "a embedding:w64 (embedding:w64:1.4) cat",
          "embedding_too_wide": "a embedding:tiny cat", "word_cut": "word " * 74 + "supercalifragilisticexpialidocious"}


def encode_cases():
    cases = Cases("nodes_encode")
    for name, text in ENCODE.items():
        for ckpt, tag in ((SD1, "sd1"), (SD2, "sd2")):
            if tag == "sd2" and name not in ("plain", "weights", "long"):
                continue
            g = Graph()
            clip = slot(g.add("CheckpointLoaderSimple", ckpt_name=ckpt), 1)
            out = g.add("CLIPTextEncode", text=text, clip=clip)
            cases.add(f"{tag}_{name}", g, cond=(out, "cond"), pooled=(out, "pooled"))
    for ckpt, tag in ((SD1, "sd1"), (SD2, "sd2")):
        for layer in (-1, -2, -3, -24):
            g = Graph()
            clip = slot(g.add("CheckpointLoaderSimple", ckpt_name=ckpt), 1)
            out = g.add("CLIPTextEncode", text=SHORT,
                        clip=g.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer))
            cases.add(f"{tag}_skip{layer}", g, cond=(out, "cond"), pooled=(out, "pooled"))
    g = Graph()
    clip = slot(g.add("CheckpointLoaderSimple", ckpt_name=SD1), 1)
    a, b = (g.add("CLIPTextEncode", text=t, clip=clip) for t in (SHORT, LONG))
    for name, node in {"average_short_long": g.add("ConditioningAverage", conditioning_to=a, conditioning_from=b, conditioning_to_strength=0.3),
                       "average_long_short": g.add("ConditioningAverage", conditioning_to=b, conditioning_from=a, conditioning_to_strength=0.7),
                       "concat": g.add("ConditioningConcat", conditioning_to=a, conditioning_from=b),
                       "zero_out": g.add("ConditioningZeroOut", conditioning=a)}.items():
        cases.add("sd1_" + name, g, cond=(node, "cond"), pooled=(node, "pooled"))
    cases.save()


class Sampling(Graph):
    """Checkpoint, two prompts, an empty latent of 16 x 24, and KSampler; methods return references."""

    def __init__(self, ckpt=SD1):
        super().__init__()
        load = self.add("CheckpointLoaderSimple", ckpt_name=ckpt)
        self.model, self.clip, self.vae = load, slot(load, 1), slot(load, 2)

    def text(self, text):
        return self.add("CLIPTextEncode", text=text, clip=self.clip)

    def sample(self, positive=None, negative=None, latent=None, cls="KSampler", **settings):
        positive = positive or self.text(SHORT)
        negative = negative or self.text(NEGATIVE)
        latent = latent or self.add("EmptyLatentImage", width=192, height=128, batch_size=1)
        values = dict(seed=5, steps=4, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0)
        values.update(settings)
        return self.add(cls, model=self.model, positive=positive, negative=negative,
                        latent_image=latent, **values)


def sample_cases():
    cases = Cases("nodes_sample")

    def case(name, build, ckpt=SD1, **settings):
        g = Sampling(ckpt)
        given = build(g) or {}
        cases.add(name, g, latent=(g.sample(**given, **settings), "latent"))

    nothing = lambda g: None
    case("base", nothing)
    case("base_cfg1", nothing, cfg=1.0)
    case("base_ancestral_karras", nothing, sampler_name="euler_ancestral", scheduler="karras")
    case("base_dpmpp_2m_sde", nothing, sampler_name="dpmpp_2m_sde", scheduler="karras")
    case("base_sd2_v", nothing, SD2)
    case("long_positive", lambda g: {"positive": g.text(LONG)})
    case("long_both", lambda g: {"positive": g.text(LONG), "negative": g.text(LONG + " bad")})
    case("long_negative_sd2", lambda g: {"negative": g.text(LONG)}, SD2)

    def second(g, text="a green (dog:1.1) on the left"):
        return g.text(text)

    def area(g, **box):
        values = dict(width=96, height=64, x=64, y=32, strength=1.0)
        values.update(box)
        return g.add("ConditioningSetArea", conditioning=second(g), **values)

    def combined(g, extra):
        return {"positive": g.add("ConditioningCombine", conditioning_1=g.text(SHORT), conditioning_2=extra)}

    case("combine", lambda g: combined(g, second(g)))
    case("combine_lengths", lambda g: combined(g, g.text(LONG)))
    case("area", lambda g: combined(g, area(g)))
    case("area_strength", lambda g: combined(g, area(g, strength=2.5)))
    case("area_corner", lambda g: combined(g, area(g, x=0, y=0)))
    case("area_over_edge", lambda g: combined(g, area(g, x=144, y=96)))
    case("area_only", lambda g: {"positive": area(g)})
    case("area_negative", lambda g: {"negative": g.add("ConditioningCombine", conditioning_1=g.text(NEGATIVE), conditioning_2=area(g))})
    case("two_areas", lambda g: combined(g, g.add("ConditioningCombine", conditioning_1=area(g, x=0), conditioning_2=area(g, x=96, strength=0.5))))

    def mask(g, how, **kw):
        image = g.add("LoadImage", image="photo_alpha.png")
        return g.add("ConditioningSetMask", conditioning=second(g), mask=slot(image, 1),
                     set_cond_area=how, strength=kw.get("strength", 1.0))

    case("mask", lambda g: combined(g, mask(g, "default")))
    case("mask_strength", lambda g: combined(g, mask(g, "default", strength=0.5)))
    case("mask_bounds", lambda g: combined(g, mask(g, "mask bounds")))
    case("mask_only", lambda g: {"positive": mask(g, "default")})

    def ranged(g, start, end, text=None):
        return g.add("ConditioningSetTimestepRange", conditioning=text or second(g), start=start, end=end)

    case("range_early_late", lambda g: {"positive": g.add(
        "ConditioningCombine", conditioning_1=ranged(g, 0.0, 0.4, g.text(SHORT)), conditioning_2=ranged(g, 0.4, 1.0))})
    case("range_extra", lambda g: combined(g, ranged(g, 0.25, 0.6)))
    case("range_none_active", lambda g: {"positive": ranged(g, 0.0, 0.2)})
    case("zero_out_negative", lambda g: {"negative": g.add("ConditioningZeroOut", conditioning=g.text(SHORT))})
    case("clip_skip", lambda g: setattr(g, "clip", g.add("CLIPSetLastLayer", clip=g.clip, stop_at_clip_layer=-2)))

    def batch(g, size=2):
        return {"latent": g.add("EmptyLatentImage", width=96, height=64, batch_size=size)}

    case("batch2", batch)
    case("batch2_area", lambda g: {**batch(g), **combined(g, area(g, width=64, x=16, y=0))})
    case("repeat_latent_img2img", lambda g: {"latent": g.add("RepeatLatentBatch", samples=g.add("LoadLatent", latent="random.latent"), amount=2)}, denoise=0.6)
    case("latent_from_batch", lambda g: {"latent": g.add("LatentFromBatch", samples=batch(g, 4)["latent"], batch_index=2, length=2)})

    def inpaint(g):
        image = g.add("LoadImage", image="photo_alpha.png")
        return {"latent": g.add("VAEEncodeForInpaint", pixels=image, vae=g.vae, mask=slot(image, 1), grow_mask_by=6)}

    def noise_mask(g):
        image = g.add("LoadImage", image="photo_alpha.png")
        latent = g.add("VAEEncode", pixels=image, vae=g.vae)
        return {"latent": g.add("SetLatentNoiseMask", samples=latent, mask=slot(image, 1))}

    case("inpaint", inpaint)
    case("noise_mask_denoise", noise_mask, denoise=0.7)
    case("noise_mask_ddim", noise_mask, sampler_name="ddim")
    g = Sampling()
    advanced = dict(cls="KSamplerAdvanced", noise_seed=5, steps=6, cfg=3.0, sampler_name="dpmpp_2m", scheduler="karras")
    first = g.add("KSamplerAdvanced", model=g.model, positive=g.text(SHORT), negative=g.text(NEGATIVE),
                  latent_image=g.add("EmptyLatentImage", width=96, height=64, batch_size=1), add_noise="enable",
                  start_at_step=0, end_at_step=3, return_with_leftover_noise="enable",
                  **{k: v for k, v in advanced.items() if k != "cls"})
    last = g.add("KSamplerAdvanced", model=g.model, positive=g.text(SHORT), negative=g.text(NEGATIVE),
                 latent_image=first, add_noise="disable", start_at_step=3, end_at_step=10000,
                 return_with_leftover_noise="disable", **{k: v for k, v in advanced.items() if k != "cls"})
    cases.add("advanced_two_parts", g, first=(first, "latent"), latent=(last, "latent"))

    g = Sampling()
    latent = g.sample(latent=g.add("EmptyLatentImage", width=96, height=64, batch_size=1), steps=6,
                      sampler_name="dpmpp_2m", scheduler="karras")
    cases.add("whole_workflow", g, latent=(latent, "latent"),
              image=(g.add("VAEDecode", samples=latent, vae=g.vae), "image"))
    cases.save()


def lora_cases():
    cases = Cases("nodes_lora")

    def case(name, loras, ckpt=SD1, model_only=False):
        g = Sampling(ckpt)
        for file, strength, text_strength in loras:
            values = dict(model=g.model, lora_name=file, strength_model=strength)
            if model_only:
                g.model = g.add("LoraLoaderModelOnly", **values)
            else:
                load = g.add("LoraLoader", clip=g.clip, strength_clip=text_strength, **values)
                g.model, g.clip = load, slot(load, 1)
        text = g.text(SHORT)
        latent = g.sample(positive=text, latent=g.add("EmptyLatentImage", width=96, height=64, batch_size=1))
        cases.add(name, g, cond=(text, "cond"), latent=(latent, "latent"))

    case("none", [])
    case("kohya", [("kohya.safetensors", 1.0, 1.0)])
    case("kohya_0.6_1.5", [("kohya.safetensors", 0.6, 1.5)])
    case("kohya_negative", [("kohya.safetensors", -0.5, -1.0)])
    case("kohya_text_only", [("kohya.safetensors", 0.0, 1.0)])
    case("kohya_model_only", [("kohya.safetensors", 0.8, 0.0)], model_only=True)
    case("diffusers_processor", [("diffusers_processor.safetensors", 0.9, 0.9)])
    case("original_names", [("original_names.safetensors", 0.9, 0.9)])
    case("two", [("kohya.safetensors", 0.7, 0.8), ("original_names.safetensors", 0.5, 0.6)])
    case("three", [("kohya.safetensors", 0.7, 0.8), ("diffusers_processor.safetensors", 0.5, 0.6),
                   ("kohya.safetensors", -0.2, 0.3)])
    case("sd2_none", [], SD2)
    case("sd2_kohya", [("kohya_sd2.safetensors", 0.8, 0.7)], SD2)
    cases.save()


def adapter_cases():
    cases = Cases("nodes_adapters")
    files = {"all_kinds": [("all_kinds.safetensors", 1.0, 1.0)],
             "all_kinds_0.7_0.4": [("all_kinds.safetensors", 0.7, 0.4)],
             "then_kohya": [("all_kinds.safetensors", 0.8, 0.9), ("kohya.safetensors", 0.6, 0.5)],
             "kohya_first": [("kohya.safetensors", 0.6, 0.5), ("all_kinds.safetensors", 0.8, 0.9)]}
    for name, loras in files.items():
        g = Sampling(SD1)
        for file, strength, text_strength in loras:
            load = g.add("LoraLoader", model=g.model, clip=g.clip, lora_name=file, strength_model=strength,
                         strength_clip=text_strength)
            g.model, g.clip = load, slot(load, 1)
        text = g.text(SHORT)
        latent = g.sample(positive=text, latent=g.add("EmptyLatentImage", width=96, height=64, batch_size=1))
        cases.add(name, g, cond=(text, "cond"), latent=(latent, "latent"))
    cases.save()


if __name__ == "__main__":
    logging.disable(logging.INFO)  # keep the warnings: a LoRA key that is not loaded would be one
    write_inputs()
    write_loras()
    write_adapters()
    embedding = torch.randn(2, 64, generator=torch.Generator().manual_seed(64)) * 0.2
    safetensors.torch.save_file({"emb_params": embedding}, os.path.join(HERE, "embeddings", "w64.safetensors"))
    comfy_nodes.check_against_dumps()
    for step in (image_cases, vae_cases, encode_cases, sample_cases, lora_cases, adapter_cases):
        step()
