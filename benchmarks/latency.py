"""Seconds of one slice and of one prompt with the default model, and what bfloat16 brings.

python benchmarks/latency.py
"""

from __future__ import annotations

import torch

from promptseg.backbones import load_backbone
from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.evaluate.bench.limits import best_of
from promptseg.inference.device import autocast, choose_device, choose_precision


def main() -> None:
    device = choose_device()
    backbone = load_backbone("default")
    backbone.module.to(device)
    size, mask = backbone.spec.input_size, backbone.spec.mask_size
    images = torch.rand(1, 3, size, size, device=device)
    box = PixelPrompts(box=torch.tensor([60.0, 60.0, 180.0, 190.0]))
    prompts = PromptBatch.collate([box], size, mask).to(device)
    times = {}
    for precision in dict.fromkeys(("fp32", choose_precision("auto", device))):
        with torch.inference_mode(), autocast(device, precision):
            embedding = backbone.encode(images)
            encode = best_of(lambda: backbone.encode(images), 20, device)
            decode = best_of(lambda e=embedding: backbone.decode(e, prompts), 20, device)
        times[precision] = encode, decode
        print(
            f"{precision}: encode {encode * 1e3:.1f} ms, decode {decode * 1e3:.1f} ms "
            f"({size} x {size}, {torch.get_num_threads()} threads, best of 20)"
        )
    first, last = next(iter(times.values())), list(times.values())[-1]
    print(f"ratio: encode {first[0] / last[0]:.2f}, decode {first[1] / last[1]:.2f}")


if __name__ == "__main__":
    main()
