"""nodes_newer.*: nodes that came after ComfyUI 0.3.64, on the tiny models: COMFYUI_DIR names a checkout of 0.33 here."""
import logging

import comfy_nodes
from comfy_nodes import slot
from make_nodes import Cases
from make_nodes_custom import Custom

for extra in ("flux",):
    comfy_nodes.register(extra)


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
    cases.save()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main()
