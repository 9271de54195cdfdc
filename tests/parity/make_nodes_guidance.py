"""nodes_guidance.*: nodes that change guidance, masks and steps of a MODEL, and latent operations, by ComfyUI's own node classes."""
import logging

import comfy_nodes
from comfy_nodes import slot
from make_nodes import Cases
from make_nodes_custom import Custom

for extra in ("cfg", "tcfg", "apg", "lumina2", "mahiro", "fresca", "perpneg", "pag", "sag", "differential_diffusion", "latent", "eps", "easycache", "video_model"):
    comfy_nodes.register(extra)


def patched(cases):
    def case(name, patches, flow=False, cfg=4.0, sampler="euler", batch=1, guider=None, **values):
        g = Custom(flow)
        for node, inputs in patches:
            g.model = g.add(node, model=g.model, **{k: v(g) if callable(v) else v for k, v in inputs.items()})
        out = g.run(sampler=g.add("KSamplerSelect", sampler_name=sampler), guider=guider(g) if guider else g.guider(cfg),
                    latent=g.latent(batch), **{k: v(g) for k, v in values.items()})
        cases.add(name, g, latent=(out, "latent"), denoised=(slot(out, 1), "latent"))

    text = lambda t: lambda g: g.add("CLIPTextEncode", text=t, clip=g.clip)
    basic = lambda g: g.add("BasicGuider", model=g.model, conditioning=text("a cat")(g))
    dual = lambda g: g.add("DualCFGGuider", model=g.model, cond1=text("a cat")(g), cond2=text("a dog")(g), negative=text("")(g), cfg_conds=3.0,
                           cfg_cond2_negative=2.0, style="regular")
    kinds = {
        "norm": ("CFGNorm", dict(strength=0.9)), "zero_star": ("CFGZeroStar", {}), "tcfg": ("TCFG", {}),
        "apg": ("APG", dict(eta=0.4, norm_threshold=2.0, momentum=0.0)),
        "apg_momentum": ("APG", dict(eta=-0.5, norm_threshold=0.0, momentum=-0.6)),
        "epsilon": ("Epsilon Scaling", dict(scaling_factor=1.05)), "renorm": ("RenormCFG", dict(cfg_trunc=5.0, renorm_cfg=0.8)),
        "renorm_any": ("RenormCFG", dict(cfg_trunc=100.0, renorm_cfg=0.0)), "mahiro": ("Mahiro", {}),
        "fresca": ("FreSca", dict(scale_low=0.7, scale_high=1.4, freq_cutoff=2)),
        "pag": ("PerturbedAttentionGuidance", dict(scale=2.5)),
        "tonemap": ("LatentApplyOperationCFG", dict(operation=lambda g: g.add("LatentOperationTonemapReinhard", multiplier=0.6))),
        "perp_neg": ("PerpNeg", dict(empty_conditioning=text(""), neg_scale=0.8)),
    }
    for name, patch in kinds.items():
        case(name, [patch])
    for name in ("norm", "zero_star", "apg", "epsilon", "mahiro", "pag", "tcfg", "fresca", "tonemap"):
        case(name + "_basic", [kinds[name]], guider=basic)
    for name in ("norm", "apg", "mahiro", "pag"):
        case(name + "_dual", [kinds[name]], guider=dual)
        case(name + "_cfg_pp", [kinds[name]], sampler="euler_cfg_pp", cfg=1.0)
    for name in ("zero_star", "tcfg", "fresca"):
        case(name + "_two", [kinds[name]], batch=2)
        case(name + "_flow", [kinds[name]], flow=True)
    for node in ("VideoLinearCFGGuidance", "VideoTriangleCFGGuidance"):
        case(node, [(node, dict(min_cfg=1.5))], batch=3)
    case("many", [kinds["tcfg"], kinds["apg"], ("RescaleCFG", dict(multiplier=0.6)), kinds["renorm"], kinds["norm"], kinds["epsilon"]])
    case("many_other_order", [kinds["renorm"], ("RescaleCFG", dict(multiplier=0.6)), kinds["epsilon"], kinds["zero_star"], kinds["fresca"]])

    large = lambda g: g.add("EmptyLatentImage", width=192, height=128, batch_size=1)
    for cfg, batch in ((4.0, 1), (1.0, 1), (4.0, 2)):
        g = Custom()
        g.model = g.add("SelfAttentionGuidance", model=g.model, scale=0.8, blur_sigma=1.5)
        latent = g.add("EmptyLatentImage", width=192, height=128, batch_size=batch)
        cases.add(f"sag_{cfg}_{batch}", g, latent=(g.run(guider=g.guider(cfg), latent=latent), "latent"))
    for kind in ("EasyCache", "LazyCache"):
        for threshold, start, end in ((0.3, 0.0, 1.0), (0.1, 0.2, 0.8), (3.0, 0.15, 0.95)):
            for sampler in ("euler", "dpmpp_2m", "dpmpp_sde"):
                for flow in (False, True)[:1 if sampler == "dpmpp_2m" else 2]:
                    g = Custom(flow)
                    g.model = g.add(kind, model=g.model, reuse_threshold=threshold, start_percent=start, end_percent=end, verbose=False)
                    out = g.run(sampler=g.add("KSamplerSelect", sampler_name=sampler), latent=large(g), sigmas=g.sigmas(8))
                    cases.add(f"{kind}_{threshold}_{sampler}_{flow}", g, latent=(out, "latent"))


def masks(cases):
    for strength in (1.0, 0.6, 0.0):
        for flow in (False, True):
            g = Custom(flow)
            g.model = g.add("DifferentialDiffusion", model=g.model, strength=strength)
            grey = g.add("ImageToMask", image=g.add("LoadImage", image="photo.png"), channel="red")
            start = g.add("LoadLatent", latent="random.latent")
            out = g.run(latent=g.add("SetLatentNoiseMask", samples=start, mask=grey), sigmas=g.sigmas(6))
            cases.add(f"differential_{strength}_{flow}", g, latent=(out, "latent"))


def operations(cases):
    for name, node, values in (("tonemap", "LatentOperationTonemapReinhard", dict(multiplier=1.3)),
                               ("sharpen", "LatentOperationSharpen", dict(sharpen_radius=3, sigma=0.8, alpha=0.3))):
        g = Custom()
        start = g.add("LoadLatent", latent="random.latent")
        cases.add("apply_" + name, g, latent=(g.add("LatentApplyOperation", samples=start, operation=g.add(node, **values)), "latent"))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    cases = Cases("nodes_guidance")
    for part in (patched, masks, operations):
        part(cases)
    cases.save()
