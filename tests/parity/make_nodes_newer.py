"""nodes_newer.*: nodes that came after ComfyUI 0.3.64, on the tiny models: COMFYUI_DIR names a checkout of 0.33 here."""
import logging

import comfy_nodes
from comfy_nodes import slot
from make_nodes import Cases
from make_nodes_custom import Custom
import comfy.k_diffusion.sampling as k_sampling

for extra in ("flux", "easycache", "cfg"):
    comfy_nodes.register(extra)

# That version draws a sampler's own noise from the seed after the run's on a CPU; here it is drawn as 0.3.64 does.
_default = k_sampling.default_noise_sampler
k_sampling.default_noise_sampler = lambda x, seed=None: _default(x, None if seed is None else seed - 1)


def main():
    cases = Cases("nodes_newer")
    for steps, side in ((4, 1024), (20, 512), (30, 2048)):
        g = Custom()
        cases.add(f"flux2_{steps}_{side}", g, sigmas=(g.add("Flux2Scheduler", steps=steps, width=side, height=side + 16), "sigmas"))
    g = Custom()
    manual = g.add("ManualSigmas", sigmas="14.6, 5.5 ;2.25,.5, 0")
    cases.add("manual", g, sigmas=(manual, "sigmas"), latent=(g.run(sigmas=manual), "latent"))
    for flow in (False, True):
        for kind, r in (("phi_1", 0.5), ("phi_1", 0.3), ("phi_2", 0.5), ("phi_2", 1.0)):
            g = Custom(flow)
            sampler = g.add("SamplerSEEDS2", solver_type=kind, eta=0.7, s_noise=1.1, r=r)
            cases.add(f"seeds_{kind}_{r}_{flow}", g, latent=(g.run(sampler), "latent"))
        for first, last, clip in ((1.0, 1.0, 0.0), (0.8, 0.3, 0.0), (1.1, 1.1, 1.5)):
            g = Custom(flow)
            sampler = g.add("SamplerLCM", s_noise=first, s_noise_end=last, noise_clip_std=clip)
            cases.add(f"lcm_{first}_{last}_{clip}_{flow}", g, latent=(g.run(sampler), "latent"))
    for cfg in (1.0, 4.0):
        g = Custom()
        g.model = g.add("CFGOverride", model=g.model, cfg=2.5, start_percent=0.0, end_percent=0.6)
        g.model = g.add("CFGOverride", model=g.model, cfg=1.0, start_percent=0.3, end_percent=0.5)
        out = g.run(guider=g.guider(cfg))
        cases.add(f"override_{cfg}", g, latent=(out, "latent"), denoised=(slot(out, 1), "latent"))
    for name, strength, cfg, batch, flow in (("whole", 1.0, 4.0, 2, False), ("part", 0.4, 4.0, 1, True), ("no_negative", 1.0, 1.0, 1, False)):
        g = Custom(flow)
        g.model = g.add("CFGNorm", model=g.model, strength=strength, pre_cfg=True)
        out = g.run(guider=g.guider(cfg), latent=g.latent(batch))
        cases.add(f"matched_norm_{name}", g, latent=(out, "latent"), denoised=(slot(out, 1), "latent"))
    g = Custom()
    for node, values in (("CFGNorm", {"strength": 0.5, "pre_cfg": True}), ("RescaleCFG", {"multiplier": 0.6}),
                         ("CFGNorm", {"strength": 0.8, "pre_cfg": True}), ("CFGNorm", {"strength": 0.9, "pre_cfg": False})):
        g.model = g.add(node, model=g.model, **values)
    cases.add("matched_norm_among_others", g, latent=(g.run(guider=g.guider(5.0)), "latent"))
    for threshold, start, end in ((0.3, 0.0, 1.0), (0.1, 0.2, 0.8), (3.0, 0.15, 0.95)):
        for sampler in ("euler", "dpmpp_sde"):
            comfy_nodes._checkpoints.clear()  # what runs before leave on a MODEL reaches its later copies
            g = Custom()
            g.model = g.add("EasyCache", model=g.model, reuse_threshold=threshold, start_percent=start, end_percent=end, verbose=False)
            latent = g.add("EmptyLatentImage", width=192, height=128, batch_size=1)
            out = g.run(sampler=g.add("KSamplerSelect", sampler_name=sampler), latent=latent, sigmas=g.sigmas(8))
            cases.add(f"easy_cache_{threshold}_{sampler}", g, latent=(out, "latent"))
    cases.save()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main()
