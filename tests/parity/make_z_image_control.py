"""z_image_control.*: a tiny Z-Image with each published form of its union ControlNet, by the modules of ComfyUI 0.33."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.ops
from comfy.ldm.lumina.controlnet import ZImage_Control
from comfy.ldm.lumina.model import NextDiT
from comfy_extras.nodes_model_patch import ZImageControlPatch

import tiny_models as tiny

SIZES = dict(dim=256, n_heads=4, n_kv_heads=4, multiple_of=32, ffn_dim_multiplier=0.25, qk_norm=True,
             operations=comfy.ops.disable_weight_init, dtype=torch.float32)
CONTROLS = {"plain": dict(n_control_layers=6), "lite": dict(n_control_layers=3, additional_in_dim=17, refiner_control=True),
            "refined": dict(n_control_layers=15, additional_in_dim=17, refiner_control=True),
            "misplaced": dict(n_control_layers=15, additional_in_dim=17, refiner_control=True, broken=True)}
UNUSED = "control_noise_refiner.0.after_proj.weight"  # zero in the file of which "misplaced" is a copy


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(model, prefix, zero=()):
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict({k: tiny.weight(prefix + k, s) * (0.0 if k in zero else 1.0) for k, s in shapes.items()})
    return {prefix + k: s for k, s in shapes.items()}, model.eval()


class Patcher:
    def __init__(self, model):
        self.model = model


class Vae:
    def __init__(self, latent):
        self.latent = latent

    def spacial_compression_encode(self):
        return 8


class Patch(ZImageControlPatch):
    """With a latent in place of pictures and a VAE."""

    def encode_latent_cond(self, control_image=None, inpaint_image=None):
        return self.vae.latent


base = NextDiT(patch_size=2, in_channels=16, n_layers=5, n_refiner_layers=2, cap_feat_dim=48, axes_dims=[16, 24, 24],
               axes_lens=[300, 512, 512], rope_theta=256.0, z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32, **SIZES)
shapes, base = filled(base, "base.")
x, context, t = seeded((2, 16, 8, 6), 1), seeded((2, 7, 48), 2), torch.tensor([0.7315, 0.0125])
tensors = {"x": x, "context": context, "timestep": t}
with torch.no_grad():
    tensors["out"] = base(x.clone(), t, context.clone(), 7, transformer_options={})
    for name, settings in CONTROLS.items():
        own, control = filled(ZImage_Control(**SIZES, **settings), name + ".", {UNUSED} if name == "misplaced" else ())
        shapes.update(own)
        latent = seeded((1, 33 if "additional_in_dim" in settings else 16, 8, 6), 5)
        image = torch.zeros(1, 64, 48, 3)
        patch = Patch(Patcher(control), Vae(latent), image, 0.7)
        options = {"patches": {"noise_refiner": [patch], "double_block": [patch]}}
        tensors[name + "/picture"] = latent
        tensors[name + "/out"] = base(x.clone(), t, context.clone(), 7, transformer_options=options)
        print(name, float((tensors[name + "/out"] - tensors["out"]).abs().max()))
comfy_env.save("z_image_control", tensors, tiny.manifest(shapes))
