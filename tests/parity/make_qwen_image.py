"""qwen_image.*: ComfyUI's Qwen-Image transformer (0.33: all ways to place reference pictures), checked against diffusers'."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.ops  # noqa: E402
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel  # noqa: E402
from comfy.model_detection import detect_unet_config  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load, seeded  # noqa: E402

SIZES = dict(num_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 14, 14))


def diffusers_output(state, x, timestep, context, references=()):
    from diffusers import QwenImageTransformer2DModel as Theirs
    model = load(Theirs(in_channels=64, out_channels=16, **SIZES), state)

    def pack(latent):
        b, c, _, h, w = latent.shape
        return latent.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)

    tokens = torch.cat([pack(t) for t in (x, *references)], 1)
    shapes = [[(1, t.shape[-2] // 2, t.shape[-1] // 2) for t in (x, *references)]] * x.shape[0]
    mask = torch.ones(context.shape[:2], dtype=torch.long)
    out = model(hidden_states=tokens, encoder_hidden_states=context, encoder_hidden_states_mask=mask, timestep=timestep,
                img_shapes=shapes, txt_seq_lens=[context.shape[1]] * x.shape[0], return_dict=False)[0]
    b, c, _, h, w = x.shape
    out = out[:, :h * w // 4].view(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return out.reshape(b, c, 1, h, w)


def main():
    model = QwenImageTransformer2DModel(image_model="qwen_image", dtype=torch.float32, operations=comfy.ops.disable_weight_init, **SIZES)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    state = tiny.weights(shapes)
    load(model, state)
    prefixed = {"model.diffusion_model." + n: v for n, v in state.items()}
    assert detect_unet_config(prefixed, "model.diffusion_model.")["image_model"] == "qwen_image"
    small, large = seeded([2, 16, 1, 8, 12], 601), seeded([1, 16, 1, 5, 7], 602)
    refs = [seeded([1, 16, 1, 4, 8], 603), seeded([1, 16, 1, 8, 4], 604), seeded([1, 16, 1, 5, 3], 605)]
    text = seeded([2, 9, 48], 606)
    mask = torch.ones(2, 9)
    mask[1, 6:] = 0
    residuals = [seeded([2, 12, 64], 607), seeded([2, 24, 64], 608)]
    t2, t1 = torch.tensor([0.7, 0.2]), torch.tensor([0.45])
    cases = {
        "plain": dict(x=small, timestep=t2, context=text),
        "odd": dict(x=large, timestep=t1, context=text[:1]),
        "mask": dict(x=small, timestep=t2, context=text, attention_mask=mask),
        "control": dict(x=small, timestep=t2, context=text, control={"input": residuals}),
        "frames": dict(x=seeded([1, 16, 3, 4, 6], 609), timestep=t1, context=text[:1]),
    }
    for method in ("index", "offset", "negative_index", "index_timestep_zero"):
        cases["references_" + method] = dict(x=large, timestep=t1, context=text[:1], ref_latents=refs, ref_latents_method=method)
    out = {"small": small, "large": large, "text": text, "mask": mask, "frames": cases["frames"]["x"],
           **{f"reference.{i}": r for i, r in enumerate(refs)}, **{f"residual.{i}": r for i, r in enumerate(residuals)}}
    with torch.no_grad():
        for name, case in cases.items():
            given = {k: v for k, v in case.items() if k not in ("x", "timestep", "context")}
            if "attention_mask" in given:
                given["attention_mask"] = given["attention_mask"].long()
            out["out/" + name] = model(case["x"].clone(), case["timestep"], case["context"], **given)
        theirs = diffusers_output(state, small, t2, text)
        assert torch.allclose(theirs, out["out/plain"], atol=1e-5), (theirs - out["out/plain"]).abs().max()
        even = [refs[0], refs[1]]
        ours = model(small[:1], t1, text[:1], ref_latents=even, ref_latents_method="index")
        assert torch.allclose(diffusers_output(state, small[:1], t1, text[:1], even), ours, atol=1e-5)
    comfy_env.save("qwen_image", out, {**tiny.manifest(shapes), "sizes": SIZES})


if __name__ == "__main__":
    main()
