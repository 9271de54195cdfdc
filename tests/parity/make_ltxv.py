"""ltxv*.*: ComfyUI's LTX-Video transformer and diffusers' on tiny models; its T5 whose tokens behind the end do not count."""
import json

from comfy_env import import_comfy, save

import_comfy()

import torch  # noqa: E402

import comfy.ops  # noqa: E402
from comfy.ldm.lightricks.model import LTXVModel  # noqa: E402

import tiny_models as tiny  # noqa: E402

HEADS, WIDTH, TEXT, CHANNELS = 32, 128, 24, 128
# What the files of 0.9.5 on say of themselves: heads that are not the 32 of all published models, and times of a causal first frame.
CONFIG = {"transformer": {"num_attention_heads": 2, "attention_head_dim": 32, "causal_temporal_positioning": True}}


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(heads=HEADS, width=WIDTH, **more):
    model = LTXVModel(in_channels=CHANNELS, cross_attention_dim=width, attention_head_dim=width // heads, num_attention_heads=heads, caption_channels=TEXT,
                      num_layers=2, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init, **more)
    shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
    model.load_state_dict(tiny.weights(shapes))
    return model.eval(), shapes


def inputs(seed, batch=1, frames=3, h=2, w=2, tokens=5, **more):
    return dict(x=seeded([batch, CHANNELS, frames, h, w], seed), timestep=torch.tensor([0.9, 0.35][:batch]), context=seeded([batch, tokens, TEXT], seed + 1)) | more


def call(model, given):
    timestep = given["timestep"]
    if "denoise_mask" in given:  # as comfy.model_base.LTXV.process_timestep
        timestep = model.patchifier.patchify((given["denoise_mask"] * timestep.view(-1, 1, 1, 1, 1))[:, :1])[0]
    mask = given["attention_mask"].long() if "attention_mask" in given else None
    with torch.no_grad():
        return model(given["x"], timestep, given["context"], mask, float(given.get("frame_rate", 25)), keyframe_idxs=given.get("keyframes"))


def dump(name, cases, said=None, **config):
    model, shapes = build(**config)
    tensors = {}
    for case, given in cases.items():
        out = call(model, given)
        tensors |= {f"{case}/{k}": v for k, v in given.items()} | {f"{case}/out": out}
    save(name, tensors, {**tiny.manifest(shapes), "cases": list(cases)} | ({"config": json.dumps(said)} if said else {}))


def by_diffusers():
    from diffusers import LTXVideoTransformer3DModel
    model = LTXVideoTransformer3DModel(in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS,
                                       cross_attention_dim=WIDTH, num_layers=2, caption_channels=TEXT)
    shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
    model.load_state_dict(tiny.weights(shapes))
    given = inputs(91, batch=2, frames=2)
    x = given["x"]
    with torch.no_grad():
        out = model.eval()(hidden_states=x.flatten(2).transpose(1, 2), encoder_hidden_states=given["context"], timestep=given["timestep"] * 1000,
                           encoder_attention_mask=torch.ones(2, 5), num_frames=x.shape[2], height=x.shape[3], width=x.shape[4],
                           rope_interpolation_scale=(8 / 25, 32, 32), return_dict=False)[0]
    save("ltxv_diffusers", {f"main/{k}": v for k, v in given.items()} | {"main/out": out.transpose(1, 2).reshape(x.shape)},
         {**tiny.manifest(shapes), "cases": ["main"]})


def guides():
    """Places of the last eight tokens: two frames of 2 x 2."""
    frames = torch.tensor([9, 9, 9, 9, 17, 17, 17, 17])
    rows, columns = torch.tensor([0, 0, 32, 32] * 2), torch.tensor([0, 32] * 4)
    return torch.stack([frames, rows, columns]).unsqueeze(0)


@torch.no_grad()
def text():
    """Prompts through ComfyUI's T5 of type ltxv: 128 tokens at least, with a mask."""
    from comfy.text_encoders import lt
    from make_text import T5_CONFIG, T5_WIDTH, load, t5_names
    shapes = t5_names("text_encoders.t5xxl.transformer.", T5_WIDTH, 16, 2, 48, 2, 32128)
    model = load(lt.ltxv_te(dtype_t5=torch.float32)(dtype=torch.float32, model_options={"t5xxl_model_config": T5_CONFIG}), shapes)
    tokenizer = lt.LTXVT5Tokenizer()
    out, cases = {}, []
    for i, prompt in enumerate(["a boat on the lake", "a (red:1.4) boat", ""]):
        states, _, extra = model.encode_token_weights(tokenizer.tokenize_with_weights(prompt))
        # Tokens that count, and some behind them.
        count = int(extra["attention_mask"].sum())
        assert states.shape[1] == 128 and extra["attention_mask"].shape == (1, 128)
        out[f"states.{i}"] = states[:, :count + 3]
        cases.append({"prompt": prompt, "tokens": states.shape[1], "count": count})
    save("text_ltxv", out, {**tiny.manifest(shapes), "cases": cases})


def main():
    dump("ltxv", {
        "main": inputs(1, batch=2, frames=2),
        "masked": inputs(11, attention_mask=torch.tensor([[1.0, 1, 1, 0, 0]]), frame_rate=torch.tensor(24.0)),
        "given": inputs(21, denoise_mask=torch.tensor([0.0, 0.4, 1.0]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2).contiguous()),
        "guided": inputs(31, frames=4, keyframes=guides()),
    })
    dump("ltxv_config", {"main": inputs(51, frames=4), "guided": inputs(61, frames=4, keyframes=guides())}, CONFIG, heads=2, width=64,
         causal_temporal_positioning=True)
    by_diffusers()
    text()


if __name__ == "__main__":
    main()
