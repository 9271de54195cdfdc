"""nodes_sdxl.*: workflows on the tiny SDXL base and refiner, run by ComfyUI's own node classes; loras/sdxl_*."""
import logging
import os

import comfy_nodes
from comfy_nodes import Graph, comfy_env, slot
from make_nodes import LONG, NEGATIVE, SHORT, Cases, lora_pair
import safetensors.torch
import torch

BASE, REFINER = "tiny_sdxl.safetensors", "tiny_refiner.safetensors"


def write_loras():
    """Both text encoders and the UNet, in kohya's and in diffusers' names; the refiner's one encoder."""
    save = lambda t, name: safetensors.torch.save_file(t, os.path.join(comfy_env.HERE, "loras", name))

    def pairs(names, up, down, alpha):
        t = {}
        for name, out, into in names:
            t[name + up], t[name + down] = lora_pair(name, out, into, 4)
            if alpha:
                t[name + ".alpha"] = torch.tensor(2.0)
        return t

    layer = "text_model_encoder_layers_1_"
    save(pairs([("lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k", 128, 128),
                ("lora_unet_output_blocks_2_1_transformer_blocks_2_ff_net_2", 256, 1024),
                ("lora_unet_middle_block_1_proj_in", 256, 256),
                ("lora_te1_" + layer + "self_attn_q_proj", 64, 64),
                ("lora_te2_" + layer + "self_attn_v_proj", 64, 64),
                ("lora_te2_" + layer + "mlp_fc1", 256, 64)], ".lora_up.weight", ".lora_down.weight", True),
         "sdxl_kohya.safetensors")
    layer = ".text_model.encoder.layers.0."
    save(pairs([("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.processor.to_k", 128, 128),
                ("unet.up_blocks.0.attentions.2.transformer_blocks.2.ff.net.2", 256, 1024),
                ("unet.mid_block.attentions.0.proj_in", 256, 256),
                ("text_encoder" + layer + "self_attn.q_proj", 64, 64),
                ("text_encoder_2" + layer + "self_attn.out_proj", 64, 64)], ".lora_B.weight", ".lora_A.weight", False),
         "sdxl_diffusers.safetensors")


class XL(Graph):
    """One checkpoint, its prompts and a small latent."""

    def load(self, checkpoint):
        node = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
        return node, slot(node, 1)

    def text(self, clip, text):
        return self.add("CLIPTextEncode", text=text, clip=clip)

    def latent(self, width=64, height=96):
        return self.add("EmptyLatentImage", width=width, height=height, batch_size=1)

    def sample(self, model, positive, negative, latent=None, **settings):
        values = dict(seed=5, steps=3, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0)
        values.update(settings)
        return self.add("KSampler", model=model, positive=positive, negative=negative,
                        latent_image=latent or self.latent(), **values)


SIZES = dict(width=768, height=512, crop_w=16, crop_h=8, target_width=896, target_height=1024)


def encode_cases(cases):
    def case(name, build, checkpoint=BASE):
        g = XL()
        clip = g.load(checkpoint)[1]
        out = build(g, clip)
        cases.add(name, g, cond=(out, "cond"), pooled=(out, "pooled"))

    for name, text in {"plain": "a photo of a cat", "weights": SHORT, "long": LONG, "empty": ""}.items():
        case("text_" + name, lambda g, clip: g.text(clip, text))
    for layer in (-1, -2, -3, -12):
        case(f"skip{layer}", lambda g, clip: g.text(
            g.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer), SHORT))
    both = lambda g, clip, l, b: g.add("CLIPTextEncodeSDXL", clip=clip, text_g=b, text_l=l, **SIZES)
    case("sdxl_two_texts", lambda g, clip: both(g, clip, SHORT, "a (blue:1.4) dog"))
    case("sdxl_long_l", lambda g, clip: both(g, clip, LONG, "a dog"))
    case("sdxl_long_g", lambda g, clip: both(g, clip, SHORT, LONG + ", (heavy:1.3)"))
    case("refiner_plain", lambda g, clip: g.text(clip, SHORT), REFINER)
    case("refiner_score", lambda g, clip: g.add("CLIPTextEncodeSDXLRefiner", clip=clip, ascore=7.5, width=512,
                                                height=640, text=SHORT), REFINER)


def sample_cases(cases):
    def case(name, patch=lambda g, m: m, prompts=None, latent=lambda g: None, checkpoint=BASE, **settings):
        g = XL()
        model, clip = g.load(checkpoint)
        positive, negative = (prompts or (lambda g, c: (g.text(c, SHORT), g.text(c, NEGATIVE))))(g, clip)
        out = g.sample(patch(g, model), positive, negative, latent(g), **settings)
        cases.add("sample_" + name, g, latent=(out, "latent"))

    patched = lambda cls, **values: lambda g, m: g.add(cls, model=m, **values)
    case("plain")
    case("karras_2m_sde", sampler_name="dpmpp_2m_sde", scheduler="karras")
    case("long", prompts=lambda g, c: (g.text(c, LONG), g.text(c, NEGATIVE)))
    case("sizes", prompts=lambda g, c: (
        g.add("CLIPTextEncodeSDXL", clip=c, text_g=SHORT, text_l="a dog", **SIZES), g.text(c, "")))
    case("refiner", checkpoint=REFINER)
    case("refiner_score", checkpoint=REFINER, prompts=lambda g, c: tuple(
        g.add("CLIPTextEncodeSDXLRefiner", clip=c, ascore=a, width=512, height=640, text=SHORT) for a in (7.5, 1.0)))
    case("rescale", patched("RescaleCFG", multiplier=0.7), cfg=7.0)
    case("rescale_v", lambda g, m: g.add("RescaleCFG", multiplier=0.4, model=g.add(
        "ModelSamplingDiscrete", model=m, sampling="v_prediction", zsnr=True)), cfg=7.0)
    for sampling in ("eps", "v_prediction", "lcm", "x0", "img_to_img"):
        case("discrete_" + sampling, patched("ModelSamplingDiscrete", sampling=sampling, zsnr=False),
             sampler_name="lcm" if sampling == "lcm" else "euler")
    case("discrete_zsnr", patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True))
    for sampling in ("v_prediction", "edm", "edm_playground_v2.5", "eps"):
        case("edm_" + sampling, patched("ModelSamplingContinuousEDM", sampling=sampling, sigma_max=80.0,
                                        sigma_min=0.01))
    case("continuous_v", patched("ModelSamplingContinuousV", sampling="v_prediction", sigma_max=500.0, sigma_min=0.03))
    free = dict(b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    case("freeu", patched("FreeU", **free))
    case("freeu_v2", patched("FreeU_V2", **free))
    case("freeu_both", lambda g, m: g.add("FreeU_V2", model=g.add("FreeU", model=m, **free), b1=1.1, b2=1.2, s1=0.5,
                                          s2=0.3))
    case("freeu_odd", patched("FreeU_V2", **free), latent=lambda g: g.latent(72, 40))

    for cls, values in {"ModelSamplingSD3": dict(shift=3.0), "ModelSamplingAuraFlow": dict(shift=1.73),
                        "ModelSamplingFlux": dict(max_shift=1.15, base_shift=0.5, width=768, height=512)}.items():
        case(cls[5:].lower(), patched(cls, **values), scheduler="simple")

    def merge(g, m, ratio, lora):
        other = g.load("tiny_sdxl_b.safetensors")[0]
        if lora:
            m = g.add("LoraLoaderModelOnly", model=m, lora_name="sdxl_kohya.safetensors", strength_model=0.8)
            other = g.add("LoraLoaderModelOnly", model=other, lora_name="sdxl_diffusers.safetensors", strength_model=0.5)
        return g.add("ModelMergeSimple", model1=m, model2=other, ratio=ratio)

    case("merge", lambda g, m: merge(g, m, 0.3, False))
    case("merge_loras", lambda g, m: merge(g, m, 0.6, True))

    def lora(file, g, model, clip, strength, text_strength):
        node = g.add("LoraLoader", model=model, clip=clip, lora_name=file, strength_model=strength,
                     strength_clip=text_strength)
        return node, slot(node, 1)

    for file in ("sdxl_kohya", "sdxl_diffusers"):
        g = XL()
        model, clip = lora(file + ".safetensors", g, *g.load(BASE), 0.8, 1.2)
        text = g.text(clip, SHORT)
        cases.add(file, g, cond=(text, "cond"), pooled=(text, "pooled"),
                  latent=(g.sample(model, text, g.text(clip, NEGATIVE)), "latent"))

    g = XL()
    model, clip = g.load(BASE)
    refiner, refiner_clip = g.load(REFINER)
    advanced = dict(noise_seed=5, steps=5, cfg=3.0, sampler_name="dpmpp_2m", scheduler="karras")
    first = g.add("KSamplerAdvanced", model=model, positive=g.text(clip, SHORT), negative=g.text(clip, NEGATIVE),
                  latent_image=g.latent(), add_noise="enable", start_at_step=0, end_at_step=3,
                  return_with_leftover_noise="enable", **advanced)
    last = g.add("KSamplerAdvanced", model=refiner, positive=g.text(refiner_clip, SHORT),
                 negative=g.text(refiner_clip, NEGATIVE), latent_image=first, add_noise="disable", start_at_step=3,
                 end_at_step=10000, return_with_leftover_noise="disable", **advanced)
    cases.add("base_to_refiner", g, first=(first, "latent"), latent=(last, "latent"))


if __name__ == "__main__":
    logging.disable(logging.INFO)  # keep the warnings: a LoRA key that is not loaded would be one
    write_loras()
    list_of_cases = Cases("nodes_sdxl")
    encode_cases(list_of_cases)
    sample_cases(list_of_cases)
    list_of_cases.save()
