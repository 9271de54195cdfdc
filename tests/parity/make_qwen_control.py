"""qwen_control*.*, qwen_patch.*: ComfyUI's ControlNets and model patch for Qwen-Image. qwen_control_fun needs ComfyUI 0.33 and is made where
COMFYUI_DIR names that."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.latent_formats  # noqa: E402
import comfy.ops  # noqa: E402
from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel  # noqa: E402
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel  # noqa: E402
from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load, seeded  # noqa: E402

SIZES = dict(num_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 14, 14))
MAIN = dict(image_model="qwen_image", dtype=torch.float32, operations=comfy.ops.disable_weight_init, **SIZES)


def shapes_of(model):
    return {n: list(p.shape) for n, p in model.state_dict().items()}


def dump_control(name, mask):
    model = QwenImageControlNetModel(extra_condition_channels=4 if mask else 0, **MAIN)
    shapes = shapes_of(model)
    load(model, tiny.weights(shapes))
    x, hint, text = seeded([2, 16, 1, 6, 10], 801), seeded([1, 16, 1, 6, 10], 802), seeded([2, 9, 48], 803)
    keep = (seeded([1, 1, 1, 6, 10], 804) > 0).float()
    given = comfy.latent_formats.Wan21().process_in(hint)
    if mask:
        given = torch.cat([given, keep], 1)
    with torch.no_grad():
        residuals = model(x, torch.tensor([0.7, 0.2]), text, hint=given.repeat(2, 1, 1, 1, 1))["input"]
    assert len(residuals) == 60 and torch.equal(residuals[0], residuals[29]) and torch.equal(residuals[30], residuals[59])
    comfy_env.save(name, {"x": x, "hint": hint, "keep": keep, "text": text, "out/0": residuals[0], "out/30": residuals[30]},
                   tiny.manifest(shapes))


def fun_control():
    """Alibaba's "Fun" ControlNet for the tiny model, two blocks of it, and the names of its tensors."""
    from comfy.ldm.qwen_image.controlnet import QwenImageFunControlNetModel
    model = QwenImageFunControlNetModel(control_in_features=132, inner_dim=64, num_attention_heads=2, attention_head_dim=32, num_control_blocks=2,
                                        injection_layers=(0, 12), dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    shapes = shapes_of(model)
    load(model, tiny.weights(shapes))
    return model, shapes


def dump_fun_control():
    main = QwenImageTransformer2DModel(**MAIN)
    load(main, tiny.weights(shapes_of(main)))
    model, shapes = fun_control()
    x, hint, text = seeded([2, 16, 1, 7, 10], 821), seeded([1, 16, 1, 7, 10], 822), seeded([2, 9, 48], 823)
    with torch.no_grad():
        out = model(x, torch.tensor([0.7, 0.2]), text, hint=comfy.latent_formats.Wan21().process_in(hint).repeat(2, 1, 1, 1, 1),
                    base_model=main)["input"]
    assert [i for i, o in enumerate(out) if o is not None] == [0, 12]
    comfy_env.save("qwen_control_fun", {"x": x, "hint": hint, "text": text, "out/0": out[0], "out/12": out[12]}, tiny.manifest(shapes))


def dump_patch():
    """Two patches behind every block: one of plain latents, one of latents with a mask, at other strengths."""
    main = QwenImageTransformer2DModel(**MAIN)
    load(main, tiny.weights(shapes_of(main)))
    patches, manifest = [], {}
    for prefix, channels in (("plain.", 0), ("masked.", 4)):
        patch = QwenImageBlockWiseControlNet(num_layers=2, additional_in_dim=channels, dim=64, operations=comfy.ops.disable_weight_init)
        shapes = shapes_of(patch)
        load(patch, {n: tiny.weight(prefix + n, s) for n, s in shapes.items()})
        patches.append(patch)
        manifest |= {prefix + n: s for n, s in shapes.items()}
    x, text = seeded([2, 16, 1, 6, 10], 811), seeded([2, 9, 48], 812)
    hints = [seeded([1, 16, 1, 6, 10], 813), seeded([1, 17, 1, 6, 10], 814)]
    encoded = [patch.process_input_latent_image(hint.clone()) for patch, hint in zip(patches, hints)]

    def patched(args):
        img = args["img"]
        for patch, tokens, strength in zip(patches, encoded, (0.8, -0.5)):
            img[:, :tokens.shape[1]] += patch.control_block(img[:, :tokens.shape[1]], tokens, args["block_index"]) * strength
        return args

    reference = seeded([1, 16, 1, 4, 4], 815)
    with torch.no_grad():
        out = main(x, torch.tensor([0.7, 0.2]), text, transformer_options={"patches": {"double_block": [patched]}})
        more = main(x[:1], torch.tensor([0.7]), text[:1], ref_latents=[reference], transformer_options={"patches": {"double_block": [patched]}})
    comfy_env.save("qwen_patch", {"x": x, "text": text, "plain": hints[0], "masked": hints[1], "reference": reference,
                                  "out": out, "out/reference": more}, tiny.manifest(manifest))


if __name__ == "__main__":
    import comfy.ldm.qwen_image.controlnet
    if hasattr(comfy.ldm.qwen_image.controlnet, "QwenImageFunControlNetModel"):
        dump_fun_control()
    dump_control("qwen_control", False)
    dump_control("qwen_control_inpaint", True)
    with torch.no_grad():
        dump_patch()
