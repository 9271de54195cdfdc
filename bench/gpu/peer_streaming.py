"""What users have today, on the file and inputs of bench_gpu_streaming: plain torch with everything resident, DisTorch2's way
(tail of the model in pageable memory, every layer copied when its turn comes) and diffusers' group offloading with streams.
peer_streaming.py FILE --out FOLDER [--facts streaming_facts.json] [--seconds N] [--tiny] [--device cuda]
Writes peer_streaming.json: a list of {name, ours, peer, unit, ratio} where `ours` comes from the facts."""
import argparse
import json
import mmap
import os
import statistics
import time
import types

import torch
import torch.nn.functional as F

import flux_like


def read_tensors(path):
    """Tensors over a shared mapping of the file; the mapping's address and size too."""
    with open(path, "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    length = int.from_bytes(mapping[:8], "little")
    header = json.loads(mapping[8:8 + length])
    header.pop("__metadata__", None)
    whole = torch.frombuffer(mapping, dtype=torch.uint8)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = whole[8 + length + begin:8 + length + end].view(torch.bfloat16).view(entry["shape"])
    return tensors, whole


class Bench:
    def __init__(self, args):
        self.args, self.start = args, time.time()
        self.device = torch.device(args.device)
        self.tensors, self.whole = read_tensors(args.file)
        self.shape = flux_like.shape_of(self.tensors)
        self.sizes = flux_like.TINY_SIZES if args.tiny else flux_like.SIZES
        self.facts = json.load(open(args.facts)) if args.facts and os.path.exists(args.facts) else {}
        self.results = []

    def late(self):
        return time.time() - self.start > self.args.seconds

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time(self, step, warm_ups=1, steps=3):
        """Median seconds of a step; the steps run back to back where there is one round."""
        for _ in range(warm_ups):
            step()
        self.synchronize()
        rounds = []
        for _ in range(steps):
            start = time.time()
            step()
            step()
            self.synchronize()
            rounds.append((time.time() - start) / 2)
        return statistics.median(rounds)

    def ours(self, size, share):
        if share == 0:
            return self.facts.get("resident_s", {}).get(size)
        for step in self.facts.get("steps", []):
            if step["size"] == size and abs(step.get("share", -1) - share) < 1e-6:
                return step["step_s"]

    def add(self, name, size, share, seconds):
        ours = self.ours(size, share)
        self.results.append({"name": f"{name}, {size} px, {share * 100:.0f} % offloaded", "ours": ours, "peer": seconds,
                             "unit": "s", "ratio": ours / seconds if ours else None})
        print(f"{self.results[-1]['name']:<64} {ours or 0:8.4f} {seconds:8.4f}", flush=True)
        with open(os.path.join(self.args.out, "peer_streaming.json"), "w") as file:
            json.dump(self.results, file, indent=1)

    def model(self):
        model = flux_like.empty_model(*self.shape)
        model.load_state_dict(self.tensors, assign=True)
        return model.requires_grad_(False)

    def inputs(self, size):
        return flux_like.make_inputs(self.shape[0], *self.sizes[size], self.device)

    # --- the peers -------------------------------------------------------------------------------

    def resident(self):
        model = self.model().to(self.device)
        for size in self.sizes:
            given = self.inputs(size)
            self.add("torch, resident", size, 0, self.time(lambda: model(*given), 2, 4))
        return model

    def distorch2(self, resident, share):
        """Layers from the tail of the model, up to that share of its bytes, stay in pageable memory."""
        model = self.model()
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
        on_device = dict(resident.named_parameters())
        total = sum(t.nbytes for t in self.tensors.values())
        moved = 0
        for name, layer in reversed(layers):
            if moved < share * total:
                moved += layer.weight.nbytes + layer.bias.nbytes
                layer.forward = types.MethodType(
                    lambda self, x: F.linear(x, self.weight.to(x.device), self.bias.to(x.device)), layer)
            else:
                layer.weight, layer.bias = on_device[name + ".weight"], on_device[name + ".bias"]
        for size in self.sizes:
            if size == "2048" or self.late():
                continue
            given = self.inputs(size)
            self.add("DisTorch2's way", size, share, self.time(lambda: model(*given), 1, 1))

    def group_offload(self, kind):
        from diffusers.hooks import apply_group_offloading
        model = self.model()
        options = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        start = time.time()
        apply_group_offloading(model, onload_device=self.device, offload_device=torch.device("cpu"), offload_type=kind,
                               use_stream=self.device.type == "cuda", non_blocking=True, **options)
        print(f"group offloading, {kind}: set up in {time.time() - start:.1f} s (memory was page-locked before)", flush=True)
        for size in self.sizes:
            if size == "2048" or self.late():
                continue
            given = self.inputs(size)
            with torch.no_grad():
                self.add(f"diffusers group offload, {kind}", size, 1, self.time(lambda: model(*given), 2, 3))

    def page_lock(self):
        """Pinning 24 GB through torch takes half a minute and 24 GB more; registering the mapping gives the peer the same speed."""
        if self.device.type != "cuda":
            return
        start = time.time()
        error = torch.cuda.cudart().cudaHostRegister(self.whole.data_ptr(), self.whole.numel(), 0)
        print(f"registered in {time.time() - start:.2f} s ({error}); is_pinned "
              f"{next(iter(self.tensors.values())).is_pinned()}", flush=True)

    @torch.inference_mode()
    def run_plain(self):
        resident = self.resident()
        for share in (1.0, 0.5, 0.25):
            if not self.late():
                self.distorch2(resident, share)

    def run(self):
        with torch.no_grad():
            self.run_plain()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.late():
            print("no time left for group offloading")
            return
        self.page_lock()
        for kind in ("block_level", "leaf_level"):
            try:
                with torch.no_grad():
                    self.group_offload(kind)
            except Exception as error:  # a peer that fails is a result too
                print(f"diffusers group offload, {kind}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--out", default=".")
    parser.add_argument("--facts")
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    Bench(parser.parse_args()).run()
