"""rounding.*: 8-bit numbers that are rounded by chance from a seed, by ComfyUI's comfy/float.py."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.float
from comfy.model_patcher import string_to_seed

NAME = "diffusion_model.some.weight"
g = torch.Generator().manual_seed(4)
values = torch.randn(24, 16, generator=g) * torch.logspace(-4, 3, 24)[:, None]
values[3, :5] = torch.tensor([0.0, -0.0, 1e-9, 448.0, -6e4])
out = {"x": values}
for name, dtype in (("e4m3fn", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
    out[name] = comfy.float.stochastic_rounding(values, dtype, seed=string_to_seed(NAME)).float()
comfy_env.save("rounding", out, {"name": NAME, "seed": string_to_seed(NAME)})
