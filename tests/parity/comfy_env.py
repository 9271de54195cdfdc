"""Import an unmodified ComfyUI checkout on the CPU, one thread, and build a closed-form model for it.

The checkout is named by the environment variable COMFYUI_DIR. See README.md for the versions.
"""
import logging
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def import_comfy():
    """Make `comfy` importable (CPU mode, quiet). Call before importing anything of ComfyUI."""
    directory = os.environ.get("COMFYUI_DIR")
    if not directory:
        sys.exit("set COMFYUI_DIR to a ComfyUI 0.3.64 checkout")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.insert(0, directory)
    sys.argv = [sys.argv[0], "--cpu"]
    logging.disable(logging.INFO)
    import torch
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.samplers  # noqa: F401
    logging.disable(logging.WARNING)


def run(workflow, loaders, classes):
    """Evaluates an API-format workflow; returns a function (node id, slot) -> value. A class of `loaders` is a function with one
    result; the others are ComfyUI's, of the older or the newer schema."""
    import torch
    results = {}

    def value(node_id, slot):
        if node_id not in results:
            node = workflow[node_id]
            args = {k: value(*v) if isinstance(v, list) else v for k, v in node["inputs"].items()}
            with torch.inference_mode():
                if node["class_type"] in loaders:
                    results[node_id] = (loaders[node["class_type"]](**args),)
                else:
                    cls = classes[node["class_type"]]
                    results[node_id] = cls.execute(**args).args if hasattr(cls, "execute") else getattr(cls(), cls.FUNCTION)(**args)
        return results[node_id][slot]

    return value


COND = [0.30, -0.20, 0.10, 0.50]     # c per latent channel, positive prompt
UNCOND = [-0.10, 0.15, -0.30, 0.05]  # c per latent channel, negative prompt


def closed_form_x0(x, sigma, c):
    """x0 = tanh(0.8 * x / sqrt(1 + sigma^2) + c); sigma [B], c [B,1,C] -> broadcast over H, W."""
    import torch
    s = sigma.view(-1, 1, 1, 1)
    return torch.tanh(0.8 * x / (1.0 + s * s).sqrt() + c[:, 0, :, None, None])


class _Config:
    """The few fields of a ComfyUI model config that BaseModel reads."""

    def __init__(self, settings):
        import comfy.latent_formats
        self.unet_config = {"disable_unet_model_creation": True}
        self.sampling_settings = settings
        self.latent_format = comfy.latent_formats.LatentFormat()
        self.latent_format.latent_channels = 4
        self.manual_cast_dtype = None
        self.memory_usage_factor = 1.0
        self.custom_operations = None
        self.optimizations = {}
        self.scaled_fp8 = None


def closed_form_patcher(kind="EPS", settings=None):
    """A ModelPatcher whose denoiser is closed_form_x0. kind names a comfy.model_base.ModelType."""
    import torch
    import comfy.model_base
    import comfy.model_patcher

    class ClosedForm(comfy.model_base.BaseModel):
        def __init__(self):
            super().__init__(_Config(settings or {}), comfy.model_base.ModelType[kind])
            self.calls = 0

        def get_dtype(self):
            return torch.float32

        def apply_model(self, x, t, c_crossattn=None, **kwargs):
            self.calls += 1
            return closed_form_x0(x, t, c_crossattn)

    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(ClosedForm(), load_device=cpu, offload_device=cpu)


def conditioning(values):
    import torch
    return [[torch.tensor(values, dtype=torch.float32).view(1, 1, -1), {}]]


def save(name, tensors, manifest):
    """Write NAME.safetensors and NAME.json beside this script."""
    import json
    import safetensors.torch
    path = os.path.join(HERE, name)
    if tensors is not None:
        tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
        safetensors.torch.save_file(tensors, path + ".safetensors")
        size = os.path.getsize(path + ".safetensors")
        assert size < 1_000_000, (name, size)
        print(name, size, "bytes,", len(tensors), "tensors")
    if manifest is None:
        return
    with open(path + ".json", "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=1, ensure_ascii=True)
        f.write("\n")
