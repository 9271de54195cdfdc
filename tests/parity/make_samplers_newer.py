"""samplers_newer.*, samplers_newer_flow.*: samplers that came after ComfyUI 0.3.64, on the closed form: COMFYUI_DIR names a checkout of
0.33 here."""
import comfy_env
from make_samplers import FLOW, SEEDS, all_combinations
import comfy.k_diffusion.sampling as k_sampling

# That version draws a sampler's own noise from the seed after the run's on a CPU; here it is drawn as 0.3.64 does.
_default = k_sampling.default_noise_sampler
k_sampling.default_noise_sampler = lambda x, seed=None: _default(x, None if seed is None else seed - 1)

NAMES = ["exp_heun_2_x0", "exp_heun_2_x0_sde"]
all_combinations(comfy_env.closed_form_patcher(), ["simple", "karras"], SEEDS, "samplers_newer", NAMES)
all_combinations(comfy_env.closed_form_patcher("FLOW", FLOW), ["simple", "beta"], SEEDS[:1], "samplers_newer_flow", NAMES)
