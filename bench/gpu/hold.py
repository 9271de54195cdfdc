"""Holds a GPU's memory, so that others have a certain amount of it: hold.py FREE [DEVICE]
FREE bytes are left free. Says so in a line "free BYTES" and stays until its input ends. A number on a line of its input is
the free memory from then on (a neighbour that grows or shrinks), which is answered in the same way."""
import sys

import torch

PIECE = 32 << 20


def main(free, device):
    device = torch.device(device)
    torch.zeros(1, device=device)
    held = []

    def settle(wanted):
        while torch.cuda.mem_get_info(device)[0] < wanted and held:
            held.pop()
            torch.cuda.empty_cache()
        while (more := torch.cuda.mem_get_info(device)[0] - wanted) >= 2 << 20:
            size = min(more, PIECE) >> 21 << 21
            try:
                held.append(torch.empty(size, dtype=torch.uint8, device=device))
            except torch.cuda.OutOfMemoryError:
                break
        print("free", torch.cuda.mem_get_info(device)[0], flush=True)

    settle(free)
    for line in sys.stdin:
        settle(int(float(line)))


if __name__ == "__main__":
    main(int(float(sys.argv[1])), sys.argv[2] if len(sys.argv) > 2 else "cuda:0")
