"""model_sampling.*: noise levels of the models that a workflow can switch to, by ComfyUI's own classes."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.model_sampling as sampling

SIGMAS = torch.tensor([0.0101, 0.02, 0.1, 0.5, 0.75, 0.9, 1.0])
PERCENTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999, 1.0)


def made(base, kind, *arguments, **settings):
    model = type("Model", (base, kind), {})()
    model.set_parameters(*arguments, **settings)
    return model


MODELS = {
    "flow_1000_3": made(sampling.ModelSamplingDiscreteFlow, sampling.CONST, shift=3.0, multiplier=1000),
    "flow_1_1.73": made(sampling.ModelSamplingDiscreteFlow, sampling.CONST, shift=1.73, multiplier=1.0),
    "flow_1_6": made(sampling.ModelSamplingDiscreteFlow, sampling.CONST, shift=6.0, multiplier=1.0),
    "flow_1000_1": made(sampling.ModelSamplingDiscreteFlow, sampling.CONST, shift=1.0, multiplier=1000),
    "flux_0.7": made(sampling.ModelSamplingFlux, sampling.CONST, shift=0.7),
    "cascade_1": made(sampling.StableCascadeSampling, sampling.EPS, 1.0),
    "cascade_2": made(sampling.StableCascadeSampling, sampling.EPS, 2.0),
    "cosmos": made(sampling.ModelSamplingCosmosRFlow, sampling.COSMOS_RFLOW, 0.01, 80.0, 1.0),
}

tensors, facts = {}, {}
x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1))
output = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
some = torch.tensor([0.9, 0.5, 0.1])
tensors.update({"x": x, "output": output, "some": some, "sigmas": SIGMAS})
for name, model in MODELS.items():
    table = model.sigmas
    facts[name] = {"count": len(table), "percent_to_sigma": {str(p): float(model.percent_to_sigma(p)) for p in PERCENTS}}
    tensors[name + "/table"] = table if len(table) <= 1000 else table[::10]
    tensors[name + "/timestep"] = model.timestep(SIGMAS).float()
    tensors[name + "/sigma"] = torch.stack([torch.as_tensor(model.sigma(t)) for t in model.timestep(some)]).float()
    tensors[name + "/input"] = model.calculate_input(some, x)
    tensors[name + "/denoised"] = model.calculate_denoised(some, output, x)
    tensors[name + "/noised"] = model.noise_scaling(some, output.clone(), x)
comfy_env.save("model_sampling", tensors, {"models": facts})
