"""torch_*.pth: files as torch.save writes them (torch 2), for pickle_test.cpp. python make_pickles.py"""
import collections
import os

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
base = torch.arange(24, dtype=torch.float32)
state = collections.OrderedDict(
    weight=base.view(4, 6), rows=base.view(4, 6)[1:3], half=torch.tensor([1.5, -2.0]).half(),
    brain=torch.tensor([[3.0], [0.5]]).bfloat16(), count=torch.tensor(7), flags=torch.tensor([True, False]),
    parameter=torch.nn.Parameter(torch.tensor([9.0, 8.0])), empty=torch.zeros(0, 3))
save = lambda value, name, **more: torch.save(value, os.path.join(HERE, name), **more)
save(state, "torch_zip.pth")
save({"state_dict": dict(state), "epoch": 3, "optimizer": {"lr": 1e-4}}, "torch_row.pth", _use_new_zipfile_serialization=False)
save({"params": {"a.weight": base[:2].clone()}, "params_ema": {"a.weight": base[2:4].clone()}}, "torch_nested.pth")
save({"turned": base.view(4, 6).t()}, "torch_turned.pth")


class Program:
    def __reduce__(self):
        return (print, ("this must not be run",))


save({"weight": base[:3].clone(), "program": Program()}, "torch_program.pth")
