"""guidance.*: ComfyUI's areas, masks, strengths and time ranges on the closed form, with the number of model calls."""
import comfy_env

comfy_env.import_comfy()
import torch
import comfy.sample

SEED, STEPS, CFG, SHAPE = 11, 4, 4.0, [2, 4, 16, 24]
A = {"c": [0.3, -0.2, 0.1, 0.5]}
B = {"c": [-0.6, 0.4, 0.9, -0.3]}
C = {"c": [0.05, 0.7, -0.8, 0.2]}
N = {"c": [-0.1, 0.15, -0.3, 0.05]}


def masks():
    big = torch.zeros(1, 64, 96)
    big[:, 16:40, 24:80] = 1.0
    big[:, 40:48, 24:80] = 0.5
    small = torch.zeros(16, 24)
    small[3:14, 2:9] = 0.8
    pair = torch.zeros(2, 16, 24)
    pair[0, :, :12] = 1.0
    pair[1, 4:, 6:] = 0.7
    return {"big": big, "small": small, "pair": pair, "empty": torch.zeros(1, 16, 24)}


CASES = {
    "area": ([A, {**B, "area": [8, 12, 4, 6], "strength": 0.7}], [N]),
    "area_only": ([{**B, "area": [8, 12, 4, 6]}], [N]),
    "areas_at_edges": ([{**A, "area": [16, 12, 0, 0]}, {**B, "area": [16, 14, 0, 10]}], [N]),
    "area_clamped": ([A, {**B, "area": [64, 64, 10, 20]}], [N]),
    "area_tiny": ([A, {**B, "area": [3, 2, 5, 5], "strength": 2.0}], [N]),
    "percentage": ([A, {**B, "area": ["percentage", 0.5, 0.3, 0.22, 0.61]}], [N]),
    "negative_area": ([A], [N, {**C, "area": [8, 8, 0, 16]}]),
    "nested": ([{**A, "area": [16, 20, 0, 2]}, {**B, "area": [6, 6, 5, 8]}, C],
               [{**N, "area": [12, 12, 2, 4]}, {**C, "area": [8, 8, 4, 7]}, N]),
    "same_area": ([{**A, "area": [8, 8, 2, 2]}, B], [{**N, "area": [8, 8, 2, 2]}, N]),
    "mask_scaled": ([A, {**B, "mask": "big", "mask_strength": 0.8}], [N]),
    "mask_only": ([{**B, "mask": "small"}], [N]),
    "mask_bounds": ([A, {**B, "mask": "small", "set_area_to_bounds": True}], [N]),
    "mask_bounds_scaled": ([A, {**B, "mask": "big", "set_area_to_bounds": True, "strength": 0.5}], [N]),
    "mask_bounds_empty": ([A, {**B, "mask": "empty", "set_area_to_bounds": True}], [N]),
    "mask_batch": ([A, {**B, "mask": "pair"}], [N]),
    "mask_and_area": ([A, {**B, "mask": "small", "area": [10, 10, 3, 1]}], [N]),
    "strengths": ([{**A, "strength": 0.25}, {**B, "strength": 2.0}], [N]),
    "time_split": ([{**A, "start_percent": 0.0, "end_percent": 0.4},
                    {**B, "start_percent": 0.4, "end_percent": 1.0}], [N]),
    "time_gap": ([{**A, "start_percent": 0.6, "end_percent": 1.0}], [N]),
    "time_and_area": ([A, {**B, "area": [8, 12, 4, 6], "start_percent": 0.0, "end_percent": 0.5}], [N]),
    "tokens_2_3": ([{**A, "tokens": 2}, {**B, "tokens": 3}], [{**N, "tokens": 1}]),
    "tokens_1_5": ([{**A, "tokens": 1}], [{**N, "tokens": 5}]),
    "four_prompts": ([A, B, C], [N]),
}


def comfy_conditioning(items, all_masks):
    out = []
    for item in items:
        options = {k: v for k, v in item.items() if k not in ("c", "tokens")}
        if "area" in options:
            options["area"] = tuple(options["area"])
        if "mask" in options:
            options["mask"] = all_masks[options["mask"]]
            options.setdefault("set_area_to_bounds", False)
            options.setdefault("mask_strength", 1.0)
        text = torch.tensor(item["c"]).view(1, 1, -1).repeat(1, item.get("tokens", 1), 1)
        out.append([text, options])
    return out


def main():
    model = comfy_env.closed_form_patcher()
    all_masks = masks()
    latent = torch.zeros(SHAPE)
    noise = comfy.sample.prepare_noise(latent, SEED)
    tensors, cases = {"mask/" + k: v for k, v in all_masks.items()}, {}
    for name, (positive, negative) in CASES.items():
        model.model.calls = 0
        tensors[name] = comfy.sample.sample(
            model, noise, STEPS, CFG, "euler", "karras", comfy_conditioning(positive, all_masks),
            comfy_conditioning(negative, all_masks), latent, seed=SEED, disable_pbar=True)
        cases[name] = {"positive": positive, "negative": negative, "model_calls": model.model.calls}
    comfy_env.save("guidance", tensors, {
        "seed": SEED, "steps": STEPS, "cfg": CFG, "sampler": "euler", "scheduler": "karras",
        "shape": SHAPE, "cases": cases})


if __name__ == "__main__":
    main()
