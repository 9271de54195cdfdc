"""samplers.*, samplers_flow.*, sampler_cases.* and sigmas.*: ComfyUI's samplers on a closed form."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.model_base
import comfy.sample
import comfy.samplers
import nodes
from comfy.samplers import KSampler

SEEDS = [1, 123456789012]
STEPS, CFG = 8, 5.0
POSITIVE = comfy_env.conditioning(comfy_env.COND)
NEGATIVE = comfy_env.conditioning(comfy_env.UNCOND)
FLOW = {"shift": 3.0, "multiplier": 1000}


def run(model, sampler, scheduler, seed):
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, seed)
    model.model.calls = 0
    out = comfy.sample.sample(model, noise, STEPS, CFG, sampler, scheduler, POSITIVE, NEGATIVE,
                              latent, seed=seed, disable_pbar=True)
    return out, model.model.calls


def all_combinations(model, schedulers, seeds, file, samplers=KSampler.SAMPLERS):
    tensors, evaluations, not_finite = {}, {}, []
    for sampler in samplers:
        rows, counts = [], []
        for scheduler in schedulers:
            row = []
            for seed in seeds:
                out, calls = run(model, sampler, scheduler, seed)
                if not torch.isfinite(out).all():
                    not_finite.append([sampler, scheduler, seed])
                row.append(out[0])
            counts.append(calls)
            rows.append(torch.stack(row))
        tensors[sampler] = torch.stack(rows)
        evaluations[sampler] = counts
    comfy_env.save(file, tensors, {
        "steps": STEPS, "cfg": CFG, "latent": [1, 4, 8, 8], "seeds": seeds,
        "schedulers": schedulers, "samplers": samplers,
        "cond": comfy_env.COND, "uncond": comfy_env.UNCOND,
        "layout": "tensor SAMPLER: [scheduler, seed, 4, 8, 8]",
        "model_calls_last_seed": evaluations, "not_finite": not_finite})
    print("not finite:", not_finite)


def sigma_tables():
    models = {"eps": ("EPS", {}), "v": ("V_PREDICTION", {}),
              "flow_shift3": ("FLOW", FLOW), "flux_shift1.15": ("FLUX", {"shift": 1.15})}
    tensors, tables = {}, {}
    for name, (kind, settings) in models.items():
        model = comfy_env.closed_form_patcher(kind, settings)
        ms = model.model.model_sampling
        sigmas = ms.sigmas
        tables[name] = {"count": len(sigmas), "sigma_min": float(ms.sigma_min),
                        "sigma_max": float(ms.sigma_max),
                        "percent_to_sigma": {str(p): float(ms.percent_to_sigma(p)) for p in
                                             (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999, 1.0)}}
        tensors[name + "/table"] = sigmas if len(sigmas) <= 1000 else sigmas[::10]
        probe = torch.tensor([0.02, 0.03, 0.1, 0.5, 0.75, 0.9, 1.0, 2.5, 7.0, 14.5, 20.0])
        tensors[name + "/probe_sigma"] = probe
        tensors[name + "/probe_timestep"] = ms.timestep(probe).float()
        for scheduler in KSampler.SCHEDULERS:
            for steps in (1, 4, 20, 30):
                for denoise in (1.0, 0.5):
                    for sampler in ("euler", "uni_pc"):
                        if sampler == "uni_pc" and denoise != 1.0:
                            continue
                        key = f"{name}/{scheduler}/{steps}/{denoise}/{sampler}"
                        try:
                            k = KSampler(model, steps, "cpu", sampler, scheduler, denoise)
                            tensors[key] = k.sigmas
                        except Exception as error:
                            tables.setdefault("fails", {})[key] = f"{type(error).__name__}: {error}"
    comfy_env.save("sigmas", tensors, {
        "layout": "MODEL/SCHEDULER/STEPS/DENOISE/SAMPLER; uni_pc drops the last but one sigma",
        "models": tables})
    print(tables.get("fails"))


def case_inputs():
    """Inputs that need no file: latents and masks from a seeded generator."""
    g = torch.Generator().manual_seed(77)
    latent = torch.randn(1, 4, 8, 8, generator=g)
    batch2 = torch.randn(2, 4, 8, 8, generator=g)
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 8:40] = 1.0
    mask[:, 48:56, 8:40] = 0.5
    return latent, batch2, mask


def advanced(model, sampler, **kw):
    latent = kw.pop("latent")
    args = dict(add_noise="enable", noise_seed=42, steps=8, cfg=CFG, sampler_name=sampler,
                scheduler="normal", positive=POSITIVE, negative=NEGATIVE, latent_image=latent,
                start_at_step=0, end_at_step=10000, return_with_leftover_noise="disable")
    args.update(kw)
    return nodes.KSamplerAdvanced().sample(model, **args)[0]["samples"]


def plain(model, sampler, latent, **kw):
    args = dict(seed=42, steps=8, cfg=CFG, sampler_name=sampler, scheduler="normal",
                positive=POSITIVE, negative=NEGATIVE, latent_image=latent, denoise=1.0)
    args.update(kw)
    return nodes.KSampler().sample(model, **args)[0]["samples"]


CASE_SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde", "uni_pc", "ddim", "lcm",
                 "dpm_fast", "dpm_adaptive", "dpmpp_2m_sde", "dpm_2"]


def special_cases(model):
    latent, batch2, mask = case_inputs()
    empty = torch.zeros(1, 4, 8, 8)
    out, cases = {"in/latent": latent, "in/batch2": batch2, "in/mask": mask}, []

    def add(name, node, sampler, result, **settings):
        key = f"{sampler}/{name}"
        out[key] = result
        cases.append({"key": key, "node": node, "sampler": sampler, **settings})

    for s in CASE_SAMPLERS:
        for d in (0.5, 0.75):
            add(f"img2img_{d}", "KSampler", s, plain(model, s, {"samples": latent}, denoise=d),
                latent="in/latent", denoise=d)
        add("img2img_1.0", "KSampler", s, plain(model, s, {"samples": latent}), latent="in/latent",
            denoise=1.0)
        for d in (1.0, 0.6):
            add(f"inpaint_{d}", "KSampler", s,
                plain(model, s, {"samples": latent, "noise_mask": mask}, denoise=d),
                latent="in/latent", noise_mask="in/mask", denoise=d)
        add("batch2", "KSampler", s, plain(model, s, {"samples": batch2}), latent="in/batch2",
            denoise=1.0)
        add("batch2_indices", "KSampler", s,
            plain(model, s, {"samples": batch2, "batch_index": [3, 1]}),
            latent="in/batch2", denoise=1.0, batch_index=[3, 1])
        add("cfg1", "KSampler", s, plain(model, s, {"samples": empty}, cfg=1.0), latent="zeros",
            denoise=1.0, cfg=1.0)
        first = advanced(model, s, latent={"samples": empty}, end_at_step=5,
                         return_with_leftover_noise="enable")
        add("adv_first5_leftover", "KSamplerAdvanced", s, first, latent="zeros",
            add_noise="enable", start_at_step=0, end_at_step=5, return_with_leftover_noise="enable")
        add("adv_rest_from5", "KSamplerAdvanced", s,
            advanced(model, s, latent={"samples": first}, add_noise="disable", start_at_step=5),
            latent=f"{s}/adv_first5_leftover", add_noise="disable", start_at_step=5,
            end_at_step=10000, return_with_leftover_noise="disable")
        add("adv_first5_full", "KSamplerAdvanced", s,
            advanced(model, s, latent={"samples": empty}, end_at_step=5), latent="zeros",
            add_noise="enable", start_at_step=0, end_at_step=5,
            return_with_leftover_noise="disable")
        add("adv_3_to_6_noise", "KSamplerAdvanced", s,
            advanced(model, s, latent={"samples": latent}, start_at_step=3, end_at_step=6),
            latent="in/latent", add_noise="enable", start_at_step=3, end_at_step=6,
            return_with_leftover_noise="disable")
        add("adv_no_noise_all", "KSamplerAdvanced", s,
            advanced(model, s, latent={"samples": latent}, add_noise="disable"),
            latent="in/latent", add_noise="disable", start_at_step=0, end_at_step=10000,
            return_with_leftover_noise="disable")
        add("adv_start_past_end", "KSamplerAdvanced", s,
            advanced(model, s, latent={"samples": latent}, start_at_step=8),
            latent="in/latent", add_noise="enable", start_at_step=8, end_at_step=10000,
            return_with_leftover_noise="disable")

    noise = comfy.sample.prepare_noise
    out["noise/seed1_1x4x8x8"] = noise(empty, 1)
    out["noise/seed123456789012_1x4x8x8"] = noise(empty, 123456789012)
    out["noise/seed42_2x4x8x8"] = noise(batch2, 42)
    out["noise/seed42_indices_3_1"] = noise(batch2, 42, [3, 1])
    out["noise/seed42_indices_0_0"] = noise(batch2, 42, [0, 0])
    out["noise/seed18446744073709551615_1x4x8x8"] = noise(empty, 18446744073709551615)
    comfy_env.save("sampler_cases", out, {
        "defaults": {"seed": 42, "steps": 8, "cfg": CFG, "scheduler": "normal",
                     "cond": comfy_env.COND, "uncond": comfy_env.UNCOND},
        "cases": cases})


if __name__ == "__main__":
    eps = comfy_env.closed_form_patcher()
    all_combinations(eps, KSampler.SCHEDULERS, SEEDS, "samplers")
    sigma_tables()
    special_cases(eps)
    all_combinations(comfy_env.closed_form_patcher("FLOW", FLOW), ["simple", "beta"], SEEDS[:1],
                     "samplers_flow")
