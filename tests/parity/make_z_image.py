"""z_image.*, lumina2.*: tiny Next-DiTs, computed by the module of ComfyUI 0.33 (COMFYUI_DIR names such a checkout)."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.ops
from comfy.ldm.lumina.model import NextDiT

import tiny_models as tiny

TEXT = 48
VARIANTS = {
    "z_image": dict(dim=256, n_heads=4, n_kv_heads=4, axes_dims=[16, 24, 24], rope_theta=256.0, ffn_dim_multiplier=1.0,
                    multiple_of=32, z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32, n_layers=2),
    "lumina2": dict(dim=96, n_heads=4, n_kv_heads=2, axes_dims=[8, 8, 8], rope_theta=10000.0, ffn_dim_multiplier=2.0,
                    multiple_of=32, n_layers=2),
}


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dump(name, settings):
    model = NextDiT(patch_size=2, in_channels=16, n_refiner_layers=2, qk_norm=True, cap_feat_dim=TEXT, axes_lens=[300, 512, 512],
                    operations=comfy.ops.disable_weight_init, dtype=torch.float32, **settings)
    model.load_state_dict({k: tiny.weight(k, list(v.shape)) for k, v in model.state_dict().items()})
    model.eval()
    tensors = {}
    with torch.no_grad():
        for case, (h, w), tokens, seed in (("main", (8, 6), 7, 1), ("odd", (7, 5), 33, 2), ("full", (16, 8), 32, 3)):
            x, context, t = seeded((2, 16, h, w), seed), seeded((2, tokens, TEXT), seed + 10), torch.tensor([0.7315, 0.0125])
            out = model(x.clone(), t, context.clone(), tokens, transformer_options={})
            tensors.update({f"{case}/x": x, f"{case}/context": context, f"{case}/timestep": t, f"{case}/out": out})
    comfy_env.save(name, tensors, tiny.manifest({k: list(v.shape) for k, v in model.state_dict().items()}))


for variant, settings in VARIANTS.items():
    dump(variant, settings)
