"""adapters.*: every kind of adapter that a LoRA file may hold, alone and stacked, merged by ComfyUI's own code.
adapter_parts.*: each on some rows of a weight, and with the halves of its rows the other way round."""
import logging

import comfy_env

comfy_env.import_comfy()
import comfy.lora  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402

OUT, IN, RANK = 16, 8, 3
SHAPES = {"linear": (OUT, IN), "conv": (OUT, IN, 3, 3), "conv1": (OUT, IN, 1, 1)}
generator = torch.Generator().manual_seed(111)

# torch.kron of 2.11 refuses the strided result of ComfyUI's einsum (LoKr with a core); only its layout is changed here.
plain_kron = torch.kron
torch.kron = lambda a, b: plain_kron(a.contiguous(), b.contiguous())


class Raise(logging.Handler):
    """ComfyUI logs an adapter that fails and goes on; a dump must not."""

    def emit(self, record):
        raise RuntimeError(record.getMessage())


logging.getLogger().addHandler(Raise(logging.WARNING))


def rand(*shape, scale=0.4):
    return torch.randn(*shape, generator=generator) * scale


def columns(shape):
    return torch.Size(shape[1:]).numel()


def spread(shape, rows):
    """A factor with the weight's input dimensions: [rows, in, kernel...]."""
    return rand(rows, *shape[1:])


def pointwise(shape, a, b):
    """A factor without a kernel, written as the layer's kind of file writes it."""
    return rand(a, b, *[1] * (len(shape) - 2))


def lora(shape, alpha=None):
    parts = {"lora_up.weight": pointwise(shape, OUT, RANK), "lora_down.weight": spread(shape, RANK)}
    return with_alpha(parts, alpha)


def with_alpha(parts, alpha):
    if alpha is not None:
        parts["alpha"] = torch.tensor(float(alpha))
    return parts


def dora(shape, parts, by_output):
    ones = [1] * (len(shape) - 2)
    size = (shape[0], 1, *ones) if by_output else (1, shape[1], *ones)
    parts["dora_scale"] = rand(*size).abs() + 0.5
    return parts


def lora_mid(shape):
    return {"lora_up.weight": rand(OUT, RANK, 1, 1), "lora_down.weight": rand(RANK, IN, 1, 1),
            "lora_mid.weight": rand(RANK, RANK, *(shape[2:] or (1, 1))), "alpha": torch.tensor(2.0)}


def loha(shape, alpha=2):
    return with_alpha({"hada_w1_a": rand(OUT, RANK), "hada_w1_b": rand(RANK, columns(shape)),
                       "hada_w2_a": rand(OUT, RANK), "hada_w2_b": rand(RANK, columns(shape))}, alpha)


def loha_core(shape):
    return {"hada_w1_a": rand(RANK, OUT), "hada_w1_b": rand(RANK, IN), "hada_t1": rand(RANK, RANK, *shape[2:]),
            "hada_w2_a": rand(RANK, OUT), "hada_w2_b": rand(RANK, IN), "hada_t2": rand(RANK, RANK, *shape[2:]),
            "alpha": torch.tensor(2.0)}


def lokr(shape, first="whole", second="whole"):
    """out = 4 * 4, in = 2 * 4."""
    rest = columns(shape) // 2
    parts = {"alpha": torch.tensor(1.5)}
    if first == "whole":
        parts["lokr_w1"] = rand(4, 2)
    else:
        parts.update(lokr_w1_a=rand(4, 2), lokr_w1_b=rand(2, 2))
    if second == "whole":
        parts["lokr_w2"] = rand(4, 4, *shape[2:])
    elif second == "flat":
        parts["lokr_w2"] = rand(4, rest)
    elif second == "uneven":  # splits the input where no channel begins
        parts.update(lokr_w1=rand(2, 9), lokr_w2=rand(8, columns(shape) // 9))
    elif second == "product":
        parts.update(lokr_w2_a=rand(4, RANK), lokr_w2_b=rand(RANK, rest))
    else:
        parts.update(lokr_w2_a=rand(RANK, 4), lokr_w2_b=rand(RANK, 4), lokr_t2=rand(RANK, RANK, *shape[2:]))
    return parts


def glora(shape, alpha=2):
    flat = [1] * (len(shape) - 2)
    return with_alpha({"a1.weight": rand(IN, RANK, *flat), "a2.weight": rand(RANK, IN, *flat),
                       "b1.weight": rand(OUT, RANK, *flat), "b2.weight": spread(shape, RANK)}, alpha)


def glora_old(shape, alpha=2):
    return with_alpha({"a1.weight": spread(shape, RANK), "a2.weight": rand(columns(shape), RANK),
                       "b1.weight": spread(shape, RANK), "b2.weight": rand(OUT, RANK)}, alpha)


def oft(alpha=None, block=4):
    return with_alpha({"oft_blocks": rand(OUT // block, block, block, scale=0.3)}, alpha)


def boft(shape, alpha=0, rescale=False, stages=3):
    parts = {"oft_blocks": rand(stages, OUT // 4, 4, 4, scale=0.3)}
    if rescale:
        parts["rescale"] = rand(OUT, *[1] * (len(shape) - 1)) + 1
    return with_alpha(parts, alpha)


def kinds(shape):
    """name -> one file's tensors for one layer."""
    yield "lora", lora(shape)
    yield "lora_alpha", lora(shape, 2)
    yield "dora_rows", dora(shape, lora(shape, 2), True)
    yield "dora_columns", dora(shape, lora(shape, 2), False)
    yield "loha", loha(shape)
    yield "loha_dora_rows", dora(shape, loha(shape), True)
    yield "loha_dora_columns", dora(shape, loha(shape), False)
    yield "lokr", lokr(shape)
    yield "lokr_first", lokr(shape, "product")
    yield "lokr_second", lokr(shape, "whole", "product")
    yield "lokr_both", lokr(shape, "product", "product")
    yield "lokr_dora_rows", dora(shape, lokr(shape), True)
    yield "lokr_dora_columns", dora(shape, lokr(shape, "product", "product"), False)
    yield "glora", glora(shape)
    yield "glora_old", glora_old(shape)
    yield "glora_dora_rows", dora(shape, glora(shape), True)
    yield "glora_dora_columns", dora(shape, glora(shape), False)
    yield "oft", oft()
    yield "oft_bound", oft(0.5)
    yield "oft_dora_rows", dora(shape, oft(2), True)
    yield "oft_dora_columns", dora(shape, oft(2), False)
    yield "boft", boft(shape)
    yield "boft_rescale", boft(shape, 0.7, True)
    yield "boft_dora_rows", dora(shape, boft(shape, 1.5), True)
    yield "boft_dora_columns", dora(shape, boft(shape, 1.5), False)
    yield "diff", {"diff": rand(*shape), "diff_b": rand(OUT)}
    yield "norm", {"w_norm": rand(*shape), "b_norm": rand(OUT)}
    yield "set", {"set_weight": rand(*shape)}
    if len(shape) > 2:
        yield "mid", lora_mid(shape)
        yield "loha_core", loha_core(shape)
        yield "lokr_core", lokr(shape, "whole", "core")
        yield "lokr_flat", lokr(shape, "whole", "flat")
        yield "dora_mid", dora(shape, lora_mid(shape), False)
    if shape[2:] == (3, 3):
        yield "lokr_uneven", lokr(shape, "whole", "uneven")


def stacks(shape):
    """name -> several files, each of which changes what the one before left."""
    yield "two", [lora(shape), loha(shape)]
    yield "three", [lora(shape, 2), dora(shape, lora(shape, 2), True), oft()]
    yield "columns_after_rotation", [oft(), dora(shape, lora(shape, 2), False)]
    yield "rows_after_butterfly", [boft(shape), dora(shape, lora(shape, 2), True)]
    yield "columns_after_butterfly", [boft(shape), dora(shape, lokr(shape), False), lora(shape)]
    yield "glora_between", [dora(shape, lokr(shape), False), glora(shape), lokr(shape)]
    yield "old_glora_last", [oft(), lora(shape), glora_old(shape)]
    yield "replaced", [lora(shape), {"set_weight": rand(*shape)}, lora(shape), oft()]
    yield "two_doras", [dora(shape, lora(shape), False), dora(shape, loha(shape), False)]
    yield "loha_before_butterfly", [loha(shape), boft(shape), {"diff": rand(*shape)}]


def merged(weight, files, strengths, rows=None, function=None):
    """The weight and bias as ComfyUI makes them. `rows`: the first and the number of those that are changed; `function` is done to
    each change."""
    values = {"layer.weight": weight, "layer.bias": torch.zeros(weight.shape[0])}
    offset = (0, *rows) if rows else None
    patches = {key: [] for key in values}
    for tensors, strength in zip(files, strengths):
        loaded = comfy.lora.load_lora({f"layer.{k}": v for k, v in tensors.items()}, {"layer": "layer.weight"})
        assert loaded
        for key, value in loaded.items():
            patches[key].append((strength, value, 1.0, offset, function))
    return {key: comfy.lora.calculate_weight(patches[key], value.clone(), key) for key, value in values.items()}


def parts_of_weights(tensors):
    """Every kind on some rows of a larger weight, and with its halves the other way round."""
    cases = []
    shape = SHAPES["linear"]
    tall = rand(3 * OUT, IN)
    tensors["rows/weight"] = tall
    for first in (8, OUT):  # where a butterfly's rows begin, and where they do not
        for name, parts in kinds(shape):
            if name == "set" or (first == 8 and not name.startswith(("oft", "boft"))):
                continue
            name = f"rows/{name}_{first}"
            for key, value in parts.items():
                tensors[f"{name}/0/layer.{key}"] = value
            result = merged(tall, [parts], [0.7], rows=(first, OUT))
            tensors[f"{name}/weight"] = result["layer.weight"]
            if result["layer.bias"].any():
                tensors[f"{name}/bias"] = result["layer.bias"]
            cases.append({"name": name, "layer": "rows", "strengths": [0.7], "files": [f"{name}/0/"], "rows": [first, OUT]})
    for name, parts in kinds(shape):
        # Those that depend on the weight ComfyUI would turn after the weight went in.
        if name in ("set", "lokr_dora_columns") or name.startswith(("oft", "boft", "glora")):
            continue
        name = f"swapped/{name}"
        for key, value in parts.items():
            tensors[f"{name}/0/layer.{key}"] = value
        result = merged(tensors["linear/weight"], [parts], [0.7], function=comfy.utils.swap_scale_shift)
        tensors[f"{name}/weight"] = result["layer.weight"]
        if result["layer.bias"].any():
            tensors[f"{name}/bias"] = result["layer.bias"]
        cases.append({"name": name, "layer": "linear", "strengths": [0.7], "files": [f"{name}/0/"], "swapped": True})
    return cases


def main():
    tensors, cases = {}, []
    for layer, shape in SHAPES.items():
        weight = rand(*shape)
        tensors[f"{layer}/weight"] = weight

        def case(name, files, strengths):
            name = f"{layer}/{name}"
            result = merged(weight, files, strengths)
            assert not torch.allclose(result["layer.weight"], weight), name
            tensors[f"{name}/weight"] = result["layer.weight"]
            if result["layer.bias"].any():
                tensors[f"{name}/bias"] = result["layer.bias"]
            return {"name": name, "layer": layer, "strengths": strengths}

        for name, parts in kinds(shape):
            for key, value in parts.items():
                tensors[f"{layer}/{name}/0/layer.{key}"] = value
            for strength in (1.0, 0.7):
                made = case(f"{name}_{strength}", [parts], [strength])
                cases.append({**made, "files": [f"{layer}/{name}/0/"]})
        for name, files in stacks(shape):
            for i, parts in enumerate(files):
                for key, value in parts.items():
                    tensors[f"{layer}/{name}/{i}/layer.{key}"] = value
            made = case(f"{name}_stack", files, [1.0, 0.7, -0.4, 0.9][:len(files)])
            cases.append({**made, "files": [f"{layer}/{name}/{i}/" for i in range(len(files))]})
    # A weight that the adapter makes wider first.
    weight = rand(OUT, 5)
    parts = {**lora((OUT, IN), 2), "reshape_weight": torch.tensor([OUT, IN])}
    tensors["wider/weight"] = weight
    for key, value in parts.items():
        tensors[f"wider/0/layer.{key}"] = value
    tensors["wider/wider_0.7/weight"] = merged(weight, [parts], [0.7])["layer.weight"]
    cases.append({"name": "wider/wider_0.7", "layer": "wider", "strengths": [0.7], "files": ["wider/0/"]})
    comfy_env.save("adapters", tensors, {"made_by": "make_adapters.py", "cases": cases})
    parts = {"linear/weight": tensors["linear/weight"]}
    cases = parts_of_weights(parts)
    comfy_env.save("adapter_parts", parts, {"made_by": "make_adapters.py", "cases": cases})


main()
