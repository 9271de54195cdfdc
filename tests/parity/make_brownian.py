"""brownian.*: values of the Brownian tree behind ComfyUI's SDE samplers (torchsde 0.2.6).

The tree is also computed here by a second, plain implementation of the facts in README.md, and both must
agree bit for bit: so the README is enough to write it again in another language.
"""
import math
import comfy_env

comfy_env.import_comfy()
import numpy as np
import torch
from comfy.k_diffusion.sampling import BatchedBrownianTree, BrownianTreeNoiseSampler

M32 = 0xFFFFFFFF
POOL = 24


def words(n):
    """Little-endian 32-bit words of a non-negative integer; 0 is one word."""
    out = [n & M32]
    while n >> 32:
        n >>= 32
        out.append(n & M32)
    return out


def seed_state(entropy, spawn_key, count):
    """README, 'Seeds'."""
    data = words(entropy)
    if spawn_key:
        data += [0] * (POOL - len(data))
        for k in spawn_key:
            data += words(k)
    hash_const = 0x43B0D7E5

    def scramble(value):
        nonlocal hash_const
        value ^= hash_const
        hash_const = hash_const * 0x931E8875 & M32
        value = value * hash_const & M32
        return value ^ value >> 16

    def mix(x, y):
        z = (x * 0xCA01F9DD - y * 0x4973F715) & M32
        return z ^ z >> 16

    pool = [scramble(data[i] if i < len(data) else 0) for i in range(POOL)]
    for src in range(POOL):
        for dst in range(POOL):
            if src != dst:
                pool[dst] = mix(pool[dst], scramble(pool[src]))
    for extra in data[POOL:]:
        for dst in range(POOL):
            pool[dst] = mix(pool[dst], scramble(extra))
    out, const = [], 0x8B51F9DD
    for i in range(count):
        value = pool[i % POOL] ^ const
        const = const * 0x58F38DED & M32
        value = value * const & M32
        out.append(value ^ value >> 16)
    return out


class PlainTree:
    """README, 'Tree'."""

    def __init__(self, t0, t1, shape, entropy):
        self.shape, self.entropy, self.low, self.high = shape, entropy, round(t0, 6), round(t1, 6)
        self.top = self.normal(seed_state(entropy, (), 3)[0]) * math.sqrt(t1 - t0)

    def normal(self, seed):
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))

    def __call__(self, a, b):
        limit = lambda t: min(max(t, self.low), self.high)
        a, b = limit(a), limit(b)
        if a == b:
            return torch.zeros(self.shape)
        pieces = []
        self.walk((self.low, self.high, 0, 0, self.top), round(a, 6), round(b, 6), pieces)
        total = pieces[0]
        for piece in pieces[1:]:
            total = total + piece
        return total

    def walk(self, node, a, b, out):
        start, end, key, depth, w = node
        if a == start and b == end:
            out.append(w)
            return
        mid = round(0.5 * (end + start), 6)
        length = 1 / (end - start)
        left, right = mid - start, end - mid
        noise = self.normal(seed_state(self.entropy, (key, depth), 1)[0])
        left_w = left * w * length + math.sqrt(left * right * length) * noise
        if a < mid:
            self.walk((start, mid, 2 * key, depth + 1, left_w), a, min(b, mid), out)
        if b > mid:
            self.walk((mid, end, 2 * key + 1, depth + 1, w - left_w), max(a, mid), b, out)


SIGMAS = [14.614641, 7.8, 4.1, 2.2, 1.15, 0.62, 0.3, 0.12, 0.0291675]
DOWN = [[SIGMAS[i], SIGMAS[i + 1]] for i in range(8)]
QUERIES = {
    "descending": DOWN,
    "with_middles": [q for a, b in DOWN for q in ([a, math.sqrt(a * b)], [a, b])],
    "repeated": DOWN[:3] + DOWN[:3] + DOWN[2:4] + [DOWN[0]],
    "nested": [[0.0291675, 14.614641], [1.0, 8.0], [2.0, 4.0], [2.5, 3.0], [1.0, 8.0], [2.6, 2.7],
               [0.0291675, 7.0], [7.0, 14.614641]],
    "ascending": [[b, a] for a, b in reversed(DOWN)],
    "rounding": [[1.0000004, 2.0000005], [1.0, 2.0], [1.0000015, 2.0000025], [0.1234567, 0.1234577],
                 [5.0, 5.0], [0.2, 0.200003]],
    "outside": [[20.0, 7.0], [1.0, 0.001], [14.614641, 0.0291675]],
}


def main():
    tensors, cases = {}, []
    for shape in ([1, 4, 4, 4], [2, 1, 2, 3]):
        for seed in (1, 123456789012):
            for name, queries in QUERIES.items():
                if shape[0] == 2 and name not in ("descending", "nested"):
                    continue
                x = torch.zeros(shape)
                low, high = torch.tensor(SIGMAS[-1]), torch.tensor(SIGMAS[0])
                tree = BatchedBrownianTree(x, low, high, seed, cpu=True)
                sampler = BrownianTreeNoiseSampler(x, low, high, seed=seed, cpu=True)
                plain = PlainTree(float(low), float(high), shape, seed)
                values, noises = [], []
                for a, b in queries:
                    a, b = torch.tensor(a), torch.tensor(b)
                    w = tree(a, b)
                    mine = plain(min(float(a), float(b)), max(float(a), float(b)))
                    mine = mine if a < b else -mine
                    assert torch.equal(w, mine), (name, seed, float(a), float(b))
                    values.append(w)
                    noises.append(sampler(a, b))
                key = f"{name}/seed{seed}/{'x'.join(map(str, shape))}"
                tensors[key + "/times"] = torch.tensor(queries, dtype=torch.float32)
                tensors[key + "/w"] = torch.stack(values)
                tensors[key + "/noise"] = torch.stack(noises)
                cases.append({"key": key, "seed": seed, "shape": shape})
    states = []
    for entropy in (0, 1, 42, 123456789012, 2**32, 2**64 - 1):
        for key in ((), (0, 0), (1, 1), (5, 3), (2**24 + 7, 25), (2**33 + 1, 34)):
            expected = np.random.SeedSequence(entropy=entropy, spawn_key=key, pool_size=POOL)
            expected = [int(v) for v in expected.generate_state(4)]
            assert expected == seed_state(entropy, key, 4)
            states.append({"entropy": entropy, "spawn_key": list(key), "state": expected})
    comfy_env.save("brownian", tensors, {
        "t_min": float(torch.tensor(SIGMAS[-1])), "t_max": float(torch.tensor(SIGMAS[0])),
        "torchsde": "0.2.6", "cases": cases, "seed_states": states})


if __name__ == "__main__":
    main()
