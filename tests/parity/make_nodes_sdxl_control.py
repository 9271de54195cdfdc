"""nodes_sdxl_control.*: ControlNets, T2I-adapters and inpainting on the tiny SDXL, run by ComfyUI's own node classes.

Also control_sdxl.json and adapter_sdxl.json: the names and shapes of networks that fit it.
"""
import logging

import comfy_nodes
import make_control_nodes as control
from comfy_nodes import comfy_env, slot
from make_nodes import NEGATIVE, SHORT, Cases
from make_nodes_sdxl import BASE, XL
import comfy.cldm.cldm
import comfy.t2i_adapter.adapter
import torch

import tiny_models as tiny

WIDTH = 64
INPAINT = "tiny_sdxl_inpaint.safetensors"


def shapes_of(model):
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def write_shapes():
    net = comfy.cldm.cldm.ControlNet(
        image_size=32, in_channels=4, model_channels=WIDTH, hint_channels=3, num_res_blocks=[2, 2, 2],
        channel_mult=(1, 2, 4), transformer_depth=[0, 0, 2, 2, 3, 3], transformer_depth_middle=3, context_dim=128,
        use_linear_in_transformer=True, num_head_channels=64, use_spatial_transformer=True, num_classes="sequential",
        adm_in_channels=1280 + 6 * 256)
    comfy_env.save("control_sdxl", None, tiny.manifest(shapes_of(net)))
    adapter = comfy.t2i_adapter.adapter.Adapter(channels=[WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH], nums_rb=2, cin=768,
                                                ksize=1, sk=True, use_conv=False, xl=True)
    comfy_env.save("adapter_sdxl", None, tiny.manifest(shapes_of(adapter)))


# A checkpoint whose UNet takes the mask and the kept picture, too.
plain_checkpoint = comfy_nodes.checkpoint


def checkpoint(name):
    if name != INPAINT:
        return plain_checkpoint(name)
    shapes = tiny.UNET_SDXL
    tiny.UNET_SDXL = {**shapes, "in_channels": 9}
    try:
        return plain_checkpoint(BASE)
    finally:
        tiny.UNET_SDXL = shapes


comfy_nodes.checkpoint = checkpoint


class Steered(XL):
    def __init__(self, name):
        super().__init__()
        self.model, self.clip = self.load(name)
        self.vae = slot(self.model, 2)

    image, net, steer, old = (getattr(control.Steered, n) for n in ("image", "net", "steer", "old"))

    def both(self):
        return {"positive": self.text(self.clip, SHORT), "negative": self.text(self.clip, NEGATIVE)}


def main():
    cases = Cases("nodes_sdxl_control")

    def case(name, build, ckpt=BASE, size=(96, 64), **settings):
        g = Steered(ckpt)
        given = build(g)
        latent = given.pop("latent", None) or g.latent(*size)
        cases.add(name, g, latent=(g.sample(g.model, latent=latent, **given, **settings), "latent"))

    net = lambda g: g.net("control_sdxl")
    case("net", lambda g: g.steer(g.both(), net(g)))
    case("net_cfg1", lambda g: g.steer(g.both(), net(g)), cfg=1.0)
    case("net_range", lambda g: g.steer(g.both(), net(g), 0.8, 0.2, 0.6), steps=6)
    case("net_chained", lambda g: g.steer(g.steer(g.both(), net(g), 0.5), net(g), 0.3, 0.0, 0.7, g.image("small.png")))
    case("net_odd", lambda g: g.steer(g.both(), net(g)), size=(72, 104))
    case("net_old", lambda g: {**g.both(), "positive": g.old(g.text(g.clip, SHORT), net(g))})

    def lora(g):
        g.model = g.add("LoraLoaderModelOnly", model=g.model, lora_name="sdxl_kohya.safetensors", strength_model=0.8)
        return g.steer(g.both(), net(g))

    case("net_lora", lora)
    case("adapter", lambda g: g.steer(g.both(), g.net("adapter_sdxl"), 0.5))
    case("adapter_and_net", lambda g: g.steer(g.steer(g.both(), g.net("adapter_sdxl"), 0.3), net(g), 0.5))

    def kept(g, noise_mask=True):
        image = g.add("LoadImage", image="photo_alpha.png")
        node = g.add("InpaintModelConditioning", **g.both(), vae=g.vae, pixels=image, mask=slot(image, 1),
                     noise_mask=noise_mask)
        return {"positive": node, "negative": slot(node, 1), "latent": slot(node, 2)}

    def encoded(g):
        image = g.add("LoadImage", image="photo_alpha.png")
        latent = g.add("VAEEncodeForInpaint", pixels=image, vae=g.vae, mask=slot(image, 1), grow_mask_by=6)
        return {**g.both(), "latent": latent}

    def steered_and_kept(g):
        given = kept(g)
        latent = given.pop("latent")
        return {**g.steer(given, net(g)), "latent": latent}

    case("inpaint_model", kept, INPAINT)
    case("inpaint_model_no_mask", lambda g: kept(g, False), INPAINT)
    case("inpaint_model_strength", kept, INPAINT, denoise=0.6)
    case("inpaint_model_encoded", encoded, INPAINT)
    case("inpaint_base", encoded)
    case("inpaint_base_conditioning", kept)
    case("inpaint_net", steered_and_kept, INPAINT)
    cases.save()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    write_shapes()
    main()
