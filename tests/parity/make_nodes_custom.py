"""nodes_custom.*: custom sampling (samplers with options, guiders, schedulers, noise) by ComfyUI's own node classes."""
import logging

import comfy_nodes
from comfy_nodes import slot
from make_nodes import NEGATIVE, SD1, SHORT, Cases, Sampling

for extra in ("align_your_steps", "optimalsteps", "gits", "lt", "advanced_samplers", "perpneg"):
    comfy_nodes.register(extra)


class Custom(Sampling):
    """Sampling by parts, on a latent of 8 x 12; flow=True: the same network as a flow model."""

    def __init__(self, flow=False):
        super().__init__(SD1)
        self.flow = flow
        if flow:
            self.model = self.add("ModelSamplingSD3", model=self.model, shift=3.0)

    def sigmas(self, steps=5, scheduler="karras", denoise=1.0):
        return self.add("BasicScheduler", model=self.model, scheduler="simple" if self.flow else scheduler, steps=steps, denoise=denoise)

    def latent(self, batch=1):
        return self.add("EmptyLatentImage", width=96, height=64, batch_size=batch)

    def guider(self, cfg=4.0):
        return self.add("CFGGuider", model=self.model, positive=self.text(SHORT), negative=self.text(NEGATIVE), cfg=cfg)

    def run(self, sampler=None, guider=None, sigmas=None, noise=None, latent=None):
        return self.add("SamplerCustomAdvanced", noise=noise or self.add("RandomNoise", noise_seed=7),
                        guider=guider or self.guider(), sampler=sampler or self.add("KSamplerSelect", sampler_name="euler"),
                        sigmas=sigmas or self.sigmas(), latent_image=latent or self.latent())


def schedulers(cases):
    def case(name, node, model=False, flow=False, **values):
        g = Custom(flow)
        if model:
            values["model"] = g.model
        cases.add(name, g, sigmas=(g.add(node, **values), "sigmas"))

    levels = dict(sigma_max=12.5, sigma_min=0.05)
    for steps in (1, 9):
        case(f"karras_{steps}", "KarrasScheduler", steps=steps, rho=6.0, **levels)
        case(f"exponential_{steps}", "ExponentialScheduler", steps=steps, **levels)
        case(f"polyexponential_{steps}", "PolyexponentialScheduler", steps=steps, rho=1.4, **levels)
        case(f"laplace_{steps}", "LaplaceScheduler", steps=steps, mu=0.3, beta=0.7, **levels)
        case(f"vp_{steps}", "VPScheduler", steps=steps, beta_d=19.9, beta_min=0.1, eps_s=0.001)
        case(f"beta_{steps}", "BetaSamplingScheduler", model=True, steps=steps, alpha=0.7, beta=1.3)
        case(f"ltxv_{steps}", "LTXVScheduler", steps=steps, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1)
    case("ltxv_plain", "LTXVScheduler", steps=6, max_shift=1.5, base_shift=0.4, stretch=False, terminal=0.2)
    g = Custom()
    cases.add("ltxv_latent", g, sigmas=(g.add("LTXVScheduler", steps=6, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.05,
                                              latent=g.latent()), "sigmas"))
    for flow in (False, True):
        for steps, denoise in ((7, 1.0), (5, 0.33), (5, 0.0)):
            case(f"basic_{flow}_{steps}_{denoise}", "BasicScheduler", model=True, flow=flow, scheduler="normal", steps=steps, denoise=denoise)
    for steps, denoise in ((1, 1.0), (4, 1.0), (3, 0.5), (10, 0.75)):
        case(f"turbo_{steps}_{denoise}", "SDTurboScheduler", model=True, steps=steps, denoise=denoise)
    for family in ("SD1", "SDXL", "SVD"):
        for steps, denoise in ((10, 1.0), (17, 0.5), (1, 1.0), (10, 0.0)):
            case(f"ays_{family}_{steps}_{denoise}", "AlignYourStepsScheduler", model_type=family, steps=steps, denoise=denoise)
    for family in ("FLUX", "Wan", "Chroma"):
        for steps, denoise in ((20, 1.0), (7, 0.6)):
            case(f"optimal_{family}_{steps}_{denoise}", "OptimalStepsScheduler", model_type=family, steps=steps, denoise=denoise)
    for coeff, steps, denoise in ((0.8, 2, 1.0), (1.2, 10, 1.0), (1.5, 20, 0.5), (1.0, 33, 1.0), (1.35, 13, 1.0)):
        case(f"gits_{coeff}_{steps}", "GITSScheduler", coeff=coeff, steps=steps, denoise=denoise)


def edits(cases):
    def case(name, node, outputs=1, **values):
        g = Custom()
        out = g.add(node, sigmas=g.sigmas(6), **values)
        cases.add(name, g, **{f"sigmas{k}": (slot(out, k), "sigmas") for k in range(outputs)})

    for step in (0, 3, 6, 50):
        case(f"split_{step}", "SplitSigmas", 2, step=step)
    for denoise in (0.0, 0.4, 0.75, 1.0):
        case(f"split_denoise_{denoise}", "SplitSigmasDenoise", 2, denoise=denoise)
    case("flip", "FlipSigmas")
    case("set_first", "SetFirstSigma", sigma=99.5)
    for spacing in ("linear", "cosine", "sine"):
        case(f"extend_{spacing}", "ExtendIntermediateSigmas", steps=3, start_at_sigma=10.0, end_at_sigma=0.5, spacing=spacing)
    case("extend_all", "ExtendIntermediateSigmas", steps=2, start_at_sigma=-1.0, end_at_sigma=0.0, spacing="linear")
    for flow in (False, True):
        for percent in (0.0, 0.3, 1.0):
            for actual in (False, True):
                g = Custom(flow)
                out = g.add("SamplingPercentToSigma", model=g.model, sampling_percent=percent, return_actual_sigma=actual)
                cases.add(f"percent_{flow}_{percent}_{actual}", g, sigma=(out, "number"))


def samplers(cases):
    def case(name, node, flow=False, model=False, cfg=4.0, **values):
        g = Custom(flow)
        if model:
            values["model"] = g.model
        out = g.run(sampler=g.add(node, **values), guider=g.guider(cfg))
        cases.add(name + ("_flow" if flow else ""), g, latent=(out, "latent"), denoised=(slot(out, 1), "latent"))

    noise = dict(eta=0.6, s_noise=1.1)
    for flow in (False, True):
        case("euler_ancestral", "SamplerEulerAncestral", flow, **noise)
        case("euler_ancestral_cfg_pp", "SamplerEulerAncestralCFGPP", flow, **noise)
        case("2s_ancestral", "SamplerDPMPP_2S_Ancestral", flow, **noise)
        case("3m_sde", "SamplerDPMPP_3M_SDE", flow, noise_device="cpu", **noise)
        case("2m_sde_heun", "SamplerDPMPP_2M_SDE", flow, noise_device="cpu", solver_type="heun", **noise)
        case("sde_r", "SamplerDPMPP_SDE", flow, noise_device="cpu", r=0.7, **noise)
        case("er_sde", "SamplerER_SDE", flow, solver_type="Reverse-time SDE", max_stage=2, **noise)
    case("2m_sde_no_noise", "SamplerDPMPP_2M_SDE", noise_device="cpu", solver_type="midpoint", eta=0.0, s_noise=1.0)
    case("er_sde_ode", "SamplerER_SDE", solver_type="ODE", max_stage=3, **noise)
    case("er_sde_1", "SamplerER_SDE", solver_type="ER-SDE", max_stage=1, **noise)
    case("lms_2", "SamplerLMS", order=2)
    adaptive = dict(rtol=0.05, atol=0.0078, h_init=0.3, pcoeff=0.0, icoeff=1.0, dcoeff=0.0, accept_safety=0.81, eta=0.0, s_noise=1.0)
    case("adaptive_2", "SamplerDPMAdaptative", **{**adaptive, "order": 2, "rtol": 0.1, "atol": 0.02})
    case("adaptive_pid", "SamplerDPMAdaptative", **{**adaptive, "order": 3, "pcoeff": 0.2, "dcoeff": 0.1})
    case("adaptive_noise", "SamplerDPMAdaptative", **{**adaptive, "order": 3, "eta": 0.5, "s_noise": 0.9})
    sa = dict(model=True, eta=0.8, sde_start_percent=0.1, sde_end_percent=0.9, s_noise=1.05)
    case("sa_2_1", "SamplerSASolver", predictor_order=2, corrector_order=1, use_pece=False, simple_order_2=False, **sa)
    case("sa_simple", "SamplerSASolver", predictor_order=2, corrector_order=2, use_pece=False, simple_order_2=True, **sa)
    case("sa_pece", "SamplerSASolver", predictor_order=3, corrector_order=4, use_pece=True, simple_order_2=False, **sa)
    case("sa_no_corrector", "SamplerSASolver", predictor_order=4, corrector_order=0, use_pece=False, simple_order_2=False, **sa)
    case("cfg_pp_alternative", "SamplerEulerCFGpp", version="alternative")
    case("cfg_pp_alternative_cfg1", "SamplerEulerCFGpp", version="alternative", cfg=1.0)
    case("cfg_pp", "SamplerEulerCFGpp", version="regular")
    for method in ("bislerp", "bicubic", "nearest-exact"):
        case(f"lcm_upscale_{method}", "SamplerLCMUpscale", scale_ratio=1.7, scale_steps=-1, upscale_method=method)
    case("lcm_upscale_steps", "SamplerLCMUpscale", scale_ratio=1.5, scale_steps=3, upscale_method="area")


def runs(cases):
    def case(name, build, flow=False, both=True):
        g = Custom(flow)
        out = build(g)
        more = {"denoised": (slot(out, 1), "latent")} if both else {}
        cases.add(name, g, latent=(out, "latent"), **more)

    text = lambda g, t: g.add("CLIPTextEncode", text=t, clip=g.clip)
    case("basic_guider", lambda g: g.run(guider=g.add("BasicGuider", model=g.model, conditioning=text(g, SHORT))))
    case("basic_guider_cfg_pp", lambda g: g.run(g.add("KSamplerSelect", sampler_name="euler_cfg_pp"),
                                                g.add("BasicGuider", model=g.model, conditioning=text(g, SHORT))))
    dual = lambda g, style, a, b: g.add("DualCFGGuider", model=g.model, cond1=text(g, SHORT), cond2=text(g, "a dog"), negative=text(g, NEGATIVE),
                                        cfg_conds=a, cfg_cond2_negative=b, style=style)
    for style in ("regular", "nested"):
        for a, b in ((3.0, 2.0), (3.0, 1.0), (1.0, 1.0), (1.0, 2.5)):
            case(f"dual_{style}_{a}_{b}", lambda g: g.run(guider=dual(g, style, a, b)))
        case(f"dual_{style}_cfg_pp", lambda g: g.run(g.add("KSamplerSelect", sampler_name="euler_cfg_pp"), dual(g, style, 3.0, 1.0)))
    perp = lambda g, cfg, scale: g.add("PerpNegGuider", model=g.model, positive=text(g, SHORT), negative=text(g, NEGATIVE),
                                       empty_conditioning=text(g, ""), cfg=cfg, neg_scale=scale)
    for cfg, scale in ((4.0, 1.0), (4.0, 0.0), (1.0, 0.0), (1.0, 0.7)):
        case(f"perp_neg_{cfg}_{scale}", lambda g: g.run(guider=perp(g, cfg, scale)))
    low = lambda g: slot(g.add("SplitSigmas", sigmas=g.sigmas(6), step=3), 1)
    high = lambda g: g.add("SplitSigmas", sigmas=g.sigmas(6), step=3)
    case("leftover", lambda g: g.run(sigmas=high(g)))
    case("leftover_then_rest", lambda g: g.run(sigmas=low(g), noise=g.add("DisableNoise"), latent=g.run(sigmas=high(g))))
    case("leftover_flow", lambda g: g.run(sigmas=low(g), noise=g.add("DisableNoise"), latent=g.run(sigmas=high(g))), flow=True)
    case("no_steps", lambda g: g.run(sigmas=g.sigmas(denoise=0.0)))
    start = lambda g: g.add("LoadLatent", latent="random.latent")
    case("unsampling", lambda g: g.run(sigmas=g.add("FlipSigmas", sigmas=g.sigmas()), noise=g.add("DisableNoise"), latent=start(g)))
    case("custom", lambda g: g.add("SamplerCustom", model=g.model, add_noise=True, noise_seed=11, cfg=3.0, positive=text(g, SHORT), negative=text(g, NEGATIVE),
                                   sampler=g.add("KSamplerSelect", sampler_name="dpmpp_2m"), sigmas=g.sigmas(denoise=0.6), latent_image=start(g)))
    case("custom_no_noise", lambda g: g.add("SamplerCustom", model=g.model, add_noise=False, noise_seed=11, cfg=1.0, positive=text(g, SHORT),
                                            negative=text(g, NEGATIVE), sampler=g.add("KSamplerSelect", sampler_name="euler_ancestral"), sigmas=g.sigmas(),
                                            latent_image=start(g)))
    case("two_pictures", lambda g: g.run(latent=g.latent(2)))

    def masked(g, sampler):
        mask = g.add("SolidMask", value=0.7, width=96, height=64)
        return g.run(g.add("KSamplerSelect", sampler_name=sampler), latent=g.add("SetLatentNoiseMask", samples=start(g), mask=mask))

    case("mask", lambda g: masked(g, "euler"))
    case("mask_ddim", lambda g: masked(g, "ddim"))
    for flow in (False, True):
        case(f"add_noise_{flow}", lambda g: g.add("AddNoise", model=g.model, noise=g.add("RandomNoise", noise_seed=3), sigmas=high(g),
                                                  latent_image=start(g)), flow, both=False)
    case("add_noise_empty", lambda g: g.add("AddNoise", model=g.model, noise=g.add("RandomNoise", noise_seed=3), sigmas=g.sigmas(),
                                            latent_image=g.latent()), both=False)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    cases = Cases("nodes_custom")
    for part in (schedulers, edits, samplers, runs):
        part(cases)
    cases.save()
