"""hunyuan_video*.*: ComfyUI's HunyuanVideo and diffusers' on tiny models."""
from comfy_env import import_comfy, save

import_comfy()

import torch  # noqa: E402

import comfy.ops  # noqa: E402
from comfy.ldm.hunyuan_video.model import HunyuanVideo  # noqa: E402

import tiny_models as tiny  # noqa: E402

torch.set_num_threads(1)
HIDDEN, HEAD, TEXT, VECTOR = 64, 32, 24, 20
# ComfyUI's parts of names and Tencent's.
TENCENT = [("txt_in.t_embedder.in_layer.", "txt_in.t_embedder.mlp.0."), ("txt_in.t_embedder.out_layer.", "txt_in.t_embedder.mlp.2."),
           ("txt_in.c_embedder.in_layer.", "txt_in.c_embedder.linear_1."), ("txt_in.c_embedder.out_layer.", "txt_in.c_embedder.linear_2."),
           ("_mod.lin.", "_mod.linear."), ("_attn.qkv.", "_attn_qkv."), ("_attn.proj.", "_attn_proj."),
           ("_attn.norm.query_norm.scale", "_attn_q_norm.weight"), ("_attn.norm.key_norm.scale", "_attn_k_norm.weight"),
           (".norm.query_norm.scale", ".q_norm.weight"), (".norm.key_norm.scale", ".k_norm.weight"),
           (".modulation.lin.", ".modulation.linear."), ("_in.in_layer.", "_in.mlp.0."), ("_in.out_layer.", "_in.mlp.2.")]


def seeded(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tencent(name):
    if not name.startswith(("vector_in.", "txt_in.t_embedder.", "txt_in.c_embedder.", "time_in.", "guidance_in.", "final_layer.")):
        name = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.2.", "mlp.fc2.")
    for ours, theirs in TENCENT:
        if not (name.startswith("vector_in.") and theirs.startswith("_in.mlp")):
            name = name.replace(ours, theirs)
    return name


def newer(name):
    return name.replace("_norm.scale", "_norm.weight")


def build(rename, **config):
    model = HunyuanVideo(image_model="hunyuan_video", dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init, **(dict(
        in_channels=16, out_channels=16, vec_in_dim=VECTOR, context_in_dim=TEXT, hidden_size=HIDDEN, mlp_ratio=4.0,
        num_heads=HIDDEN // HEAD, depth=2, depth_single_blocks=2, axes_dim=[4, 14, 14], theta=256, patch_size=[1, 2, 2], qkv_bias=True,
        guidance_embed=True, byt5=False, meanflow=False) | config))
    shapes, state = {}, {}
    for name, value in model.state_dict().items():
        shapes[rename(name)] = list(value.shape)
        state[name] = tiny.weight(rename(name), list(value.shape))
    model.load_state_dict(state)
    return model.eval(), shapes


def inputs(batch=2, frames=3, h=4, w=6, tokens=5, seed=1, vector=True, **more):
    given = dict(x=seeded([batch, 16, frames, h, w], seed), timestep=torch.tensor([900.0, 350.0][:batch]),
                 context=seeded([batch, tokens, TEXT], seed + 1))
    if vector:
        given["vector"] = seeded([batch, VECTOR], seed + 2)
    return given | more


OURS = {"vector": "y", "given_frame": "guiding_frame_index", "reference": "ref_latent"}


def call(model, given):
    x = torch.cat([given["x"], given["concat"]], 1) if "concat" in given else given["x"]
    more = {OURS.get(k, k): v.clone() for k, v in given.items() if k not in ("x", "concat", "timestep", "context")}
    if "attention_mask" in more:
        more["attention_mask"] = more["attention_mask"].long()
    with torch.no_grad():
        return model(x, given["timestep"], given["context"].clone(), **more)


def dump(name, rename, cases, **config):
    model, shapes = build(rename, **config)
    tensors = {}
    for case, given in cases.items():
        tensors |= {f"{case}/{k}": v for k, v in given.items()} | {f"{case}/out": call(model, given)}
    probe = sorted(shapes)[:3]
    save(name, tensors, {"tensors": shapes, "cases": list(cases),
                         "first_values": {n: tiny.weight(n, shapes[n]).flatten()[:4].tolist() for n in probe}})


def by_diffusers():
    from diffusers import HunyuanVideoTransformer3DModel
    model = HunyuanVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=HIDDEN // HEAD, attention_head_dim=HEAD, num_layers=2, num_single_layers=2,
        num_refiner_layers=2, text_embed_dim=TEXT, pooled_projection_dim=VECTOR, rope_axes_dim=(4, 14, 14), guidance_embeds=True)
    shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
    model.load_state_dict(tiny.weights(shapes))
    given = inputs(seed=91, guidance=torch.tensor([6.0, 3.0]))
    with torch.no_grad():
        out = model.eval()(hidden_states=given["x"], timestep=given["timestep"], encoder_hidden_states=given["context"],
                           encoder_attention_mask=torch.ones(2, 5), pooled_projections=given["vector"],
                           guidance=given["guidance"] * 1000, return_dict=False)[0]
    save("hunyuan_video_diffusers", {f"main/{k}": v for k, v in given.items()} | {"main/out": out},
         {"tensors": shapes, "cases": ["main"], "first_values": {}})


def main():
    guided = dict(guidance=torch.tensor([6.0, 3.0]))
    one = dict(batch=1, guidance=torch.tensor([6.0]))
    dump("hunyuan_video", tencent, {
        "main": inputs(**guided),
        "untold": inputs(seed=11, frames=1),
        "masked": inputs(seed=21, **one, attention_mask=torch.tensor([[1.0, 1, 1, 0, 0]])),
        "given": inputs(seed=31, **one, given_frame=torch.tensor([0.0])),
        "reference": inputs(seed=41, **one, reference=seeded([1, 16, 1, 2, 4], 45)),
    })
    dump("hunyuan_video_i2v", newer, {"main": inputs(seed=51, **guided, concat=seeded([2, 17, 3, 4, 6], 55))}, in_channels=33)
    dump("skyreels_i2v", tencent, {"main": inputs(seed=61, concat=seeded([2, 16, 3, 4, 6], 65))}, in_channels=32, guidance_embed=False)
    by_diffusers()


if __name__ == "__main__":
    main()
