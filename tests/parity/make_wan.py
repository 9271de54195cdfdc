"""wan_*: ComfyUI's Wan transformer in the forms that are published, checked against diffusers' under its own names."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.ops  # noqa: E402
from comfy.ldm.wan.model import WanModel  # noqa: E402
from comfy.model_detection import detect_unet_config  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load, seeded  # noqa: E402

WIDTH, LAYERS, MLP, TEXT = 256, 2, 96, 48


def make(model_type="t2v", in_dim=16, out_dim=16, **more):
    model = WanModel(model_type=model_type, in_dim=in_dim, out_dim=out_dim, dim=WIDTH, ffn_dim=MLP, text_dim=TEXT, num_heads=WIDTH // 128,
                     num_layers=LAYERS, qk_norm=True, cross_attn_norm=True, dtype=torch.float32, operations=comfy.ops.disable_weight_init, **more)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    state = tiny.weights(shapes)
    load(model, state)
    config = detect_unet_config({"model.diffusion_model." + n: v for n, v in state.items()}, "model.diffusion_model.")
    assert config["image_model"] == "wan2.1" and config["model_type"] == model_type, config
    return model, state, shapes


def theirs(state, **more):
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
    model = WanTransformer3DModel(num_attention_heads=WIDTH // 128, attention_head_dim=128, out_channels=16, text_dim=TEXT, ffn_dim=MLP,
                                  num_layers=LAYERS, **more)
    converted = convert_wan_transformer_to_diffusers({k: v.clone() for k, v in state.items()})
    return load(model, converted), converted


@torch.no_grad()
def main():
    t2, t1 = torch.tensor([700.0, 200.5]), torch.tensor([450.0])
    text = seeded([2, 9, TEXT], 701)
    small, odd = seeded([2, 16, 3, 4, 6], 702), seeded([1, 16, 2, 5, 7], 703)

    model, state, shapes = make()
    subjects = seeded([2, 16, 2, 4, 6], 704)
    frame_times = torch.tensor([[0.0, 700.0, 700.0], [0.0, 200.5, 100.25]])
    out = {"small": small, "odd": odd, "text": text, "subjects": subjects}
    out["out/plain"] = model(small.clone(), t2, text)
    out["out/odd"] = model(odd.clone(), t1, text[:1])
    out["out/subjects"] = model(small.clone(), t2, text, time_dim_concat=subjects)
    out["out/frame_times"] = model(small.clone(), frame_times, text)
    diffusers, converted = theirs(state, in_channels=16)
    other = diffusers(hidden_states=small, timestep=t2, encoder_hidden_states=text, return_dict=False)[0]
    assert torch.allclose(other, out["out/plain"], atol=2e-5), (other - out["out/plain"]).abs().max()
    names = {n: list(v.shape) for n, v in converted.items()}
    # Which of ours each of theirs is, by the values.
    of = {}
    for n, v in converted.items():
        of[n] = [k for k, w in state.items() if w.shape == v.shape and torch.equal(w, v)]
        assert len(of[n]) == 1, n
        of[n] = of[n][0]
    comfy_env.save("wan_t2v", out, {**tiny.manifest(shapes), "diffusers": of, "diffusers_shapes": names})

    # Pictures to video: a picture encoder's states, channels beside the latent.
    model, state, shapes = make("i2v", in_dim=36)
    beside, vision = seeded([2, 20, 3, 4, 6], 705), seeded([2, 7, 1280], 706)
    out = {"small": small, "text": text, "beside": beside, "vision": vision}
    both = torch.cat([small, beside], 1)
    out["out/vision"] = model(both.clone(), t2, text, clip_fea=vision)
    out["out/blind"] = model(both.clone(), t2, text)
    diffusers, converted = theirs(state, in_channels=36, image_dim=1280, added_kv_proj_dim=WIDTH)
    # Theirs takes the last 512 tokens for the text: as many of those as there are.
    long_text = seeded([2, 512, TEXT], 707)
    other = diffusers(hidden_states=both, timestep=t2, encoder_hidden_states=long_text, encoder_hidden_states_image=vision, return_dict=False)[0]
    ours = model(both.clone(), t2, long_text, clip_fea=vision)
    assert torch.allclose(other, ours, atol=2e-5), (other - ours).abs().max()
    of = {n: [k for k, w in state.items() if w.shape == v.shape and torch.equal(w, v)] for n, v in converted.items()}
    assert all(len(v) == 1 for v in of.values()), of
    comfy_env.save("wan_i2v", out, {**tiny.manifest(shapes), "diffusers": {k: v[0] for k, v in of.items()},
                                    "diffusers_shapes": {n: list(v.shape) for n, v in converted.items()}})

    # First and last frame; a reference picture before the first frame.
    model, state, shapes = make("i2v", in_dim=36, flf_pos_embed_token_number=6)
    two = vision[:, :6]  # as many states as there are places: two pictures
    out = {"small": small, "text": text, "beside": beside, "vision": two.contiguous(), "out/places": model(both.clone(), t2, text, clip_fea=two)}
    comfy_env.save("wan_flf", out, tiny.manifest(shapes))
    model, state, shapes = make("i2v", in_dim=36, in_dim_ref_conv=16)
    reference = seeded([2, 16, 4, 6], 708)
    out = {"small": small, "text": text, "beside": beside, "vision": vision, "reference": reference}
    out["out/reference"] = model(both.clone(), t2, text, clip_fea=vision, reference_latent=reference)
    out["out/without"] = model(both.clone(), t2, text, clip_fea=vision)
    comfy_env.save("wan_reference", out, tiny.manifest(shapes))


if __name__ == "__main__":
    main()
