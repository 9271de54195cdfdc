"""nodes_control.*: workflows with ControlNets and T2I-adapters, run by ComfyUI's own nodes on the tiny models."""
import json
import logging
import os

import comfy_nodes
from comfy_nodes import comfy_env
from make_nodes import SD2, Cases, Sampling, slot
import comfy.controlnet
import comfy.t2i_adapter.adapter
import torch

import tiny_models as tiny

# Light adapters have one width in ComfyUI.
Light = comfy.t2i_adapter.adapter.Adapter_light
Light.__init__ = lambda self, cin, channels, nums_rb, make=Light.__init__: make(self, [32, 64, 128, 128], nums_rb, cin)


# Configurations of diffusers files come from a list of real models.
comfy.model_detection.unet_config_from_diffusers_unet = lambda state, dtype=None: {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 1, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 128, "legacy": False,
    "use_linear_in_transformer": True, "num_head_channels": 64, "num_heads": -1, "use_spatial_transformer": True}


def tensors_of(dump):
    with open(os.path.join(comfy_env.HERE, dump + ".json"), encoding="utf-8") as f:
        return tiny.weights(json.load(f)["tensors"])


def load(name, model=None):
    """What ControlNetLoader gives for a file of the tests: its weights are those of a dump."""
    dump = name.split(".")[0].replace("_shuffle", "")
    options = {"dtype": torch.float32}
    if "_shuffle" in name:
        options["global_average_pooling"] = True
    if dump == "control_difference":
        state = {k: v * 0.1 for k, v in tensors_of("control_sd1").items()}
        state["difference"] = torch.zeros(1)
    else:
        state = tensors_of(dump)
    return comfy.controlnet.load_controlnet_state_dict(state, model, options)


class Loader:
    FUNCTION = "load"

    def load(self, control_net_name, model=None):
        return (load(control_net_name, model),)


comfy_nodes.nodes.NODE_CLASS_MAPPINGS.update({"ControlNetLoader": Loader, "DiffControlNetLoader": Loader})
NEGATIVE, SHORT = "blurry", "a photo of a (red:1.3) cat"


class Steered(Sampling):
    def image(self, name="photo.png"):
        return self.add("LoadImage", image=name)

    def net(self, name="control_sd1"):
        return self.add("ControlNetLoader", control_net_name=name + ".safetensors")

    def both(self):
        return {"positive": self.text(SHORT), "negative": self.text(NEGATIVE)}

    def old(self, conditioning, net, strength=0.8, image="photo.png"):
        return self.add("ControlNetApply", conditioning=conditioning, control_net=net, image=self.image(image),
                        strength=strength)

    def steer(self, conditionings, net, strength=0.8, start=0.0, end=1.0, image=None):
        out = self.add("ControlNetApplyAdvanced", **conditionings, control_net=net, strength=strength,
                       image=image or self.image(), start_percent=start, end_percent=end)
        return {"positive": out, "negative": slot(out, 1)}


def main():
    cases = Cases("nodes_control")

    def case(name, build, ckpt="tiny_sd1.safetensors", size=(96, 64, 1), **settings):
        g = Steered(ckpt)
        given = {"steps": 3, **build(g)}
        latent = g.add("EmptyLatentImage", width=size[0], height=size[1], batch_size=size[2])
        cases.add(name, g, latent=(g.sample(latent=latent, **{**given, **settings}), "latent"))

    case("advanced", lambda g: g.steer(g.both(), g.net()))
    case("cfg1", lambda g: g.steer(g.both(), g.net()), cfg=1.0)
    case("strength_0", lambda g: g.steer(g.both(), g.net(), strength=0.0))
    case("range", lambda g: g.steer(g.both(), g.net(), start=0.2, end=0.6), steps=6)
    case("old_on_positive", lambda g: {**g.both(), "positive": g.old(g.text(SHORT), g.net())})
    case("old_on_both", lambda g: {"positive": g.old(g.text(SHORT), g.net()),
                                   "negative": g.old(g.text(NEGATIVE), g.net(), 0.4)})
    case("one_side", lambda g: {**g.both(), "positive": g.steer(g.both(), g.net())["positive"]})
    case("cropped_hint", lambda g: g.steer(g.both(), g.net(), image=g.image("small.png")), size=(64, 88, 1))
    case("odd_size", lambda g: g.steer(g.both(), g.net()), size=(72, 104, 1))
    case("chained", lambda g: g.steer(g.steer(g.both(), g.net(), 0.5), g.net(), 0.7, image=g.image("small.png")))
    case("chained_ranges", lambda g: g.steer(g.steer(g.both(), g.net(), 0.5, 0.0, 0.5), g.net(), 0.7, 0.3, 1.0,
                                             g.image("small.png")), steps=6)
    case("adapter", lambda g: g.steer(g.both(), g.net("adapter_sd1"), 0.5))
    case("adapter_light", lambda g: g.steer(g.both(), g.net("adapter_light"), 0.3, 0.0, 0.7))
    case("adapters_and_net", lambda g: g.steer(g.steer(g.steer(g.both(), g.net("adapter_sd1"), 0.4), g.net(), 0.5),
                                               g.net("adapter_light"), 0.2))
    case("shuffle", lambda g: g.steer(g.both(), g.net("control_sd1_shuffle")))
    case("sd2", lambda g: g.steer(g.both(), g.net("control_sd2")), SD2)
    case("difference", lambda g: g.steer(g.both(), g.add(
        "DiffControlNetLoader", model=g.model, control_net_name="control_difference.safetensors")))
    case("low_rank", lambda g: g.steer(g.both(), g.net("control_low_rank"), 0.5))
    case("batch", lambda g: g.steer(g.both(), g.net()), size=(96, 64, 2))

    def images(g):
        second = g.add("ImageInvert", image=g.image())
        return g.add("ImageBatch", image1=g.image(), image2=second)

    case("two_hints", lambda g: g.steer(g.both(), g.net(), image=images(g)), size=(96, 64, 2))
    case("two_hints_three", lambda g: g.steer(g.both(), g.net(), image=images(g)), size=(96, 64, 3))
    case("two_hints_adapter", lambda g: g.steer(g.both(), g.net("adapter_sd1"), 0.5, image=images(g)), size=(96, 64, 2))

    def area(g):
        there = g.add("ConditioningSetArea", conditioning=g.old(g.text("a green dog"), g.net()), width=64, height=64,
                      x=32, y=24, strength=1.0)
        return {"positive": g.add("ConditioningCombine", conditioning_1=g.text(SHORT), conditioning_2=there),
                "negative": g.text(NEGATIVE)}

    case("area", area, size=(120, 96, 1))

    def combined(g):
        one, two = g.old(g.text(SHORT), g.net()), g.old(g.text("a green dog"), g.net(), 0.3, "small.png")
        return {"positive": g.add("ConditioningCombine", conditioning_1=one, conditioning_2=two),
                "negative": g.add("ConditioningCombine", conditioning_1=g.text(NEGATIVE), conditioning_2=g.text("bad"))}

    case("combined_old", combined)

    def lora(g, net):
        g.model = g.add("LoraLoaderModelOnly", model=g.model, lora_name="kohya.safetensors", strength_model=0.8)
        return g.steer(g.both(), g.net(net), 0.5)

    case("lora", lambda g: lora(g, "control_sd1"))
    case("lora_low_rank", lambda g: lora(g, "control_low_rank"))
    cases.save()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main()
