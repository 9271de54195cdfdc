"""flux_loras.*: LoRA files in every spelling on the tiny FLUX.1 of flux_dev, applied by ComfyUI 0.3.64."""
import types

from comfy_env import import_comfy, save

import_comfy()

import torch  # noqa: E402

import comfy.lora  # noqa: E402
import comfy.lora_convert  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.ops  # noqa: E402
from comfy.ldm.flux.model import Flux  # noqa: E402

import tiny_models as tiny  # noqa: E402

torch.set_num_threads(1)
D, M, RANK = 64, 256, 2
CONFIG = dict(vec_in_dim=20, context_in_dim=24, hidden_size=D, mlp_ratio=4.0, num_heads=2, depth=2, depth_single_blocks=2,
              axes_dim=[4, 14, 14], theta=10000, patch_size=2, qkv_bias=True, out_channels=16, in_channels=16, guidance_embed=True)


class Seeds:
    """Random tensors, each with the next seed."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, *shape, scale=0.3):
        self.seed += 1
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)) * scale


def pair(sd, r, base, out, into, up=".lora_up.weight", down=".lora_down.weight", alpha=None):
    sd[base + up], sd[base + down] = r(out, RANK), r(RANK, into)
    if alpha is not None:
        sd[base + ".alpha"] = torch.tensor(float(alpha))


def kohya(r):
    sd = {}
    for base, out, into in (("double_blocks_0_img_attn_qkv", 3 * D, D), ("double_blocks_1_txt_mlp_2", D, M),
                            ("single_blocks_1_linear1", 3 * D + M, D), ("single_blocks_0_linear2", D, D + M),
                            ("double_blocks_0_img_mod_lin", 6 * D, D), ("final_layer_adaLN_modulation_1", 2 * D, D)):
        pair(sd, r, "lora_unet_" + base, out, into, alpha=1)
    return sd


def peft(r):
    sd = {}
    s = "transformer.single_transformer_blocks.0."
    d = "transformer.transformer_blocks.1."
    for base, out, into in ((s + "attn.to_q", D, D), (s + "attn.to_v", D, D), (s + "proj_mlp", M, D), (s + "proj_out", D, D + M),
                            (d + "attn.to_k", D, D), (d + "attn.add_q_proj", D, D), (d + "attn.to_out.0", D, D),
                            (d + "ff.net.0.proj", M, D), (d + "norm1_context.linear", 6 * D, D),
                            ("transformer.x_embedder", D, 64)):
        pair(sd, r, base, out, into, ".lora_B.weight", ".lora_A.weight")
    return sd


def onetrainer(r):
    sd = {}
    s = "lora_transformer_single_transformer_blocks_1_attn_"
    for part in "qkv":
        pair(sd, r, s + "to_" + part, D, D, alpha=2)
    sd[s + "to_k.dora_scale"] = r(D, 1).abs() + 0.5
    pair(sd, r, "lora_transformer_transformer_blocks_0_attn_add_v_proj", D, D, alpha=1)
    sd["lora_transformer_transformer_blocks_0_attn_add_v_proj.dora_scale"] = r(D, 1).abs() + 0.5
    return sd


def lycoris(r):
    sd = {}
    b = "lycoris_transformer_blocks_0_attn_to_q"
    sd[b + ".lokr_w1"], sd[b + ".lokr_w2"] = r(4, 4), r(16, 16)
    b = "lycoris_transformer_blocks_0_attn_to_v"
    sd |= {f"{b}.hada_w1_a": r(D, RANK), f"{b}.hada_w1_b": r(RANK, D), f"{b}.hada_w2_a": r(D, RANK), f"{b}.hada_w2_b": r(RANK, D)}
    b = "lycoris_single_transformer_blocks_0_proj_mlp"
    sd |= {f"{b}.lokr_w1": r(8, 8), f"{b}.lokr_w2_a": r(32, RANK), f"{b}.lokr_w2_b": r(RANK, 8), f"{b}.alpha": torch.tensor(1.0)}
    b = "lycoris_single_transformer_blocks_1_attn_to_k"
    sd[b + ".diff"] = r(D, D, scale=0.1)
    return sd


def control(r):
    sd = {}
    for base, out, into in (("img_in", D, 128), ("double_blocks.0.img_attn.qkv", 3 * D, D), ("single_blocks.0.linear1", 3 * D + M, D)):
        pair(sd, r, base, out, into, ".lora_B.weight", ".lora_A.weight")
        sd[base + ".lora_B.bias"] = r(out)
    sd["double_blocks.0.img_attn.norm.key_norm.scale"] = 1 + r(32)
    sd["single_blocks.0.norm.key_norm.scale"] = 1 + r(32)
    return sd


def xlabs(r):
    sd = {}
    for base, out, into in (("double_blocks.0.processor.qkv_lora1", 3 * D, D), ("double_blocks.0.processor.proj_lora1", D, D),
                            ("double_blocks.1.processor.qkv_lora2", 3 * D, D), ("double_blocks.1.processor.proj_lora2", D, D),
                            ("single_blocks.0.processor.qkv_lora", 3 * D, D), ("single_blocks.0.processor.proj_lora", D, D + M)):
        pair(sd, r, base, out, into, ".up.weight", ".down.weight")
    return sd


def turned(r):
    """diffusers' last norm has the scale before the shift."""
    sd = {}
    pair(sd, r, "transformer.norm_out.linear", 2 * D, D, ".lora_B.weight", ".lora_A.weight")
    pair(sd, r, "transformer.proj_out", 64, D, ".lora_B.weight", ".lora_A.weight")
    sd["transformer.norm_out.linear.dora_scale"] = r(2 * D, 1).abs() + 0.5
    return sd


def rotations(r):
    """Rotations and columns' magnitudes on some rows of fused matrices."""
    sd = {}
    s, d = "lycoris_single_transformer_blocks_0_", "lycoris_transformer_blocks_1_attn_"
    sd[s + "attn_to_k.oft_blocks"] = r(D // 4, 4, 4)
    sd[d + "to_q.oft_blocks"] = r(3, D // 8, 8, 8)
    sd[d + "to_q.alpha"] = torch.tensor(0.0)
    pair(sd, r, d + "to_v", D, D, alpha=1)
    sd[d + "to_v.dora_scale"] = r(1, D).abs() + 0.5
    b = s + "proj_mlp"
    sd |= {f"{b}.a1.weight": r(D, RANK), f"{b}.a2.weight": r(RANK, D), f"{b}.b1.weight": r(M, RANK), f"{b}.b2.weight": r(RANK, D)}
    return sd


class Model(comfy.model_base.Flux):
    """What ComfyUI asks when it matches and applies a LoRA."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.diffusion_model = Flux(image_model="flux", dtype=torch.float32, device="cpu",
                                    operations=comfy.ops.disable_weight_init, **CONFIG)
        self.model_config = types.SimpleNamespace(unet_config=dict(CONFIG))
        self.manual_cast_dtype = None
        state = self.diffusion_model.state_dict()
        self.diffusion_model.load_state_dict(
            {k: tiny.weight(k.replace("_norm.scale", "_norm.weight"), list(v.shape)) for k, v in state.items()})


def applied(sd, strength):
    model = Model()
    convert = comfy.lora_convert.convert_uso_lora if any(".processor." in k for k in sd) else comfy.lora_convert.convert_lora
    keys = comfy.lora.model_lora_keys_unet(model, {})
    loaded = comfy.lora.load_lora(convert(dict(sd)), keys)
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    patcher.add_patches(loaded, strength)
    assert patcher.patches
    for key in patcher.patches:
        weight = comfy.utils.get_attr(model, key)
        comfy.utils.set_attr_param(model, key, comfy.lora.calculate_weight(patcher.patches[key], weight.clone(), key))
    return model.diffusion_model.eval()


r = Seeds(5000)
given = dict(x=r(2, 16, 4, 6, scale=1), timestep=torch.tensor([0.8, 0.3]), context=r(2, 5, 24, scale=1), y=r(2, 20, scale=1),
             guidance=torch.tensor([3.5, 2.0]))
concat = r(2, 16, 4, 6, scale=1)
tensors = {f"in/{k}": v for k, v in given.items()} | {"in/concat": concat}
cases = []
for name, make in dict(kohya=kohya, peft=peft, onetrainer=onetrainer, lycoris=lycoris, control=control, xlabs=xlabs, turned=turned, rotations=rotations).items():
    sd = make(r)
    model = applied(sd, 0.7)
    x = torch.cat([given["x"], concat], 1) if name == "control" else given["x"]
    with torch.no_grad():
        out = model(x, given["timestep"], given["context"], y=given["y"], guidance=given["guidance"])[:, :16]
    tensors |= {f"{name}/{k}": v for k, v in sd.items()}
    tensors["out/" + name] = out
    cases.append(name)
save("flux_loras", tensors, {"cases": cases, "strength": 0.7})
