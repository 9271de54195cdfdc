"""wan_vace, wan_camera, wan_camera22, wan_animate, wan_s2v: ComfyUI's Wan transformers with further parts; inputs follow the rule of the weights."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.ops  # noqa: E402
from comfy.ldm.wan import model as wan, model_animate  # noqa: E402
from comfy.model_detection import detect_unet_config  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load  # noqa: E402

WIDTH, MLP, TEXT = 256, 96, 48
TIMES = torch.tensor([700.0, 200.5])


def make(kind, found, layers=2, in_dim=16, **more):
    model = kind(in_dim=in_dim, out_dim=16, dim=WIDTH, ffn_dim=MLP, text_dim=TEXT, num_heads=WIDTH // 128, num_layers=layers, qk_norm=True,
                 cross_attn_norm=True, dtype=torch.float32, operations=comfy.ops.disable_weight_init, **more)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    state = tiny.weights(shapes)
    load(model, state)
    config = detect_unet_config({"model.diffusion_model." + n: v for n, v in state.items()}, "model.diffusion_model.")
    assert config["image_model"] == "wan2.1" and config["model_type"] == found, config
    return model, state, shapes


def video(channels, frames=3):
    return tiny.weight(f"video {channels}", [2, channels, frames, 4, 6])


TEXTS = tiny.weight("texts", [2, 9, TEXT])


def vace():
    model, state, shapes = make(wan.VaceWanModel, "vace", layers=4, vace_layers=2, vace_in_dim=96)
    controls = tiny.weight("controls", [2, 2, 96, 3, 4, 6]) * 8
    x = video(16)
    out = {"out/one": model(x.clone(), TIMES, TEXTS, vace_context=controls[:, :1], vace_strength=[1.0]),
           "out/two": model(x.clone(), TIMES, TEXTS, vace_context=controls, vace_strength=[0.75, 1.25])}
    from diffusers import WanVACETransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
    theirs = WanVACETransformer3DModel(num_attention_heads=WIDTH // 128, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=TEXT,
                                       ffn_dim=MLP, num_layers=4, vace_layers=[0, 2], vace_in_channels=96)
    converted = convert_wan_transformer_to_diffusers({k: v.clone() for k, v in state.items()})
    load(theirs, converted)
    other = theirs(hidden_states=x, timestep=TIMES, encoder_hidden_states=TEXTS, control_hidden_states=controls[:, 0], return_dict=False)[0]
    assert torch.allclose(other, out["out/one"], atol=2e-5), (other - out["out/one"]).abs().max()
    of = {n: [k for k, w in state.items() if w.shape == v.shape and torch.equal(w, v)] for n, v in converted.items()}
    assert all(len(v) == 1 for v in of.values()), of
    comfy_env.save("wan_vace", out, {**tiny.manifest(shapes), "diffusers": {k: v[0] for k, v in of.items()},
                                     "diffusers_shapes": {n: list(v.shape) for n, v in converted.items()}})


def camera():
    rays = tiny.weight("rays", [2, 24, 3, 32, 48]) * 32
    seen = tiny.weight("seen", [2, 7, 1280])
    model, _, shapes = make(wan.CameraWanModel, "camera", in_dim=32, model_type="camera")
    x = video(32)
    comfy_env.save("wan_camera", {"out/moving": model(x.clone(), TIMES, TEXTS, clip_fea=seen, camera_conditions=rays),
                                  "out/resting": model(x.clone(), TIMES, TEXTS, clip_fea=seen)}, tiny.manifest(shapes))
    model, _, shapes = make(wan.CameraWanModel, "camera_2.2", in_dim=36, model_type="camera_2.2")
    comfy_env.save("wan_camera22", {"out/moving": model(video(36), TIMES, TEXTS, camera_conditions=rays)}, tiny.manifest(shapes))


def animate():
    model, _, shapes = make(model_animate.AnimateWanModel, "animate", layers=5, in_dim=36)
    x, seen = video(36), tiny.weight("seen", [2, 7, 1280])
    pose = tiny.weight("pose", [2, 16, 2, 4, 6]) * 8
    face = tiny.weight("face", [2, 3, 2, 512, 512]) * 800
    comfy_env.save("wan_animate", {"out/moving": model(x.clone(), TIMES, TEXTS, clip_fea=seen, pose_latents=pose, face_pixel_values=face),
                                   "out/posed": model(x.clone(), TIMES, TEXTS, clip_fea=seen, pose_latents=pose)}, tiny.manifest(shapes))


def s2v():
    model, _, shapes = make(wan.WanModel_S2V, "s2v", layers=5, audio_dim=40)
    x = tiny.weight("wide video", [2, 16, 3, 8, 16]) * 30
    given = dict(audio_embed=tiny.weight("audio", [2, 25, 40, 14]) * 8, reference_latent=tiny.weight("reference", [2, 16, 1, 8, 16]) * 8,
                 reference_motion=tiny.weight("motion", [2, 16, 5, 8, 16]) * 8, control_video=tiny.weight("control", [2, 16, 3, 8, 16]) * 8)
    out = {"out/all": model(x.clone(), TIMES, TEXTS, **given)}
    given.pop("reference_motion")
    out["out/begin"] = model(x.clone(), TIMES, TEXTS, **given)
    out["out/plain"] = model(x.clone(), TIMES, TEXTS)
    comfy_env.save("wan_s2v", out, tiny.manifest(shapes))


@torch.no_grad()
def main():
    vace()
    camera()
    animate()
    s2v()


if __name__ == "__main__":
    main()
