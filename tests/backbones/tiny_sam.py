"""A small SAM with random weights, what SamPredictor says of it, and prompts for both."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from support import TINY_SAM
from torch import nn

from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.backbones.segment_anything import build_sam

SIZE, MASK = 64, 32
SHAPE = replace(TINY_SAM, hidden=128)
COMBINATIONS = list(itertools.product([False, True], repeat=3))


def randomise(module: nn.Module, seed: int, deviation: float = 0.2) -> None:
    """Weights large enough that outputs are far from zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = deviation * torch.randn(parameter.shape, generator=generator)
        parameter.data = noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)


def tiny_sam(seed: int = 0) -> Sam:
    sam = build_sam(SHAPE, SIZE)
    randomise(sam, seed)
    return sam.eval()


def save_tiny(folder: Path, seed: int = 0) -> tuple[Sam, Path]:
    """The model and its checkpoint in the original layout."""
    sam, path = tiny_sam(seed), folder / "tiny.pth"
    torch.save(sam.state_dict(), path)
    return sam, path


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(one).permute(2, 0, 1) / 255 for one in images])


def prompt(points: int, box: bool, mask: bool, seed: int = 0, scale: int = 1) -> PixelPrompts:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(2, scale * SIZE - 2, (2, 2)), axis=0).reshape(4)
    return PixelPrompts(
        points=torch.tensor(rng.uniform(0, scale * SIZE, (points, 2)), dtype=torch.float32),
        labels=torch.tensor([(1, 0)[point % 2] for point in range(points)], dtype=torch.long),
        box=torch.tensor(corners, dtype=torch.float32) if box else None,
        mask=torch.tensor(rng.normal(0, 5, (MASK, MASK)), dtype=torch.float32) if mask else None,
    )


def collate(*prompts: PixelPrompts, size: int = SIZE, mask_size: int = MASK) -> PromptBatch:
    return PromptBatch.collate(prompts, size, mask_size)


def reference(
    sam: Sam, pixels: np.ndarray, given: PixelPrompts, multimask: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Low-resolution logits and quality from SamPredictor, whose pixel centres are whole."""
    predictor = SamPredictor(sam)
    predictor.set_image(pixels)
    some = len(given.points) > 0
    _, quality, logits = predictor.predict(
        point_coords=given.points.numpy() - 0.5 if some else None,
        point_labels=given.labels.numpy() if some else None,
        box=None if given.box is None else given.box.numpy() - 0.5,
        mask_input=None if given.mask is None else given.mask.numpy()[None],
        multimask_output=multimask,
    )
    return logits, quality


def mixed_prompts(scale: int = 1) -> list[PixelPrompts]:
    """Eight prompts of different shapes, some twice, one with strokes."""
    kinds = [(2, False, False), (0, True, False), (1, True, True), (2, False, False)]
    kinds += [(0, False, True), (3, False, True), (1, False, False)]
    prompts = [prompt(*kind, seed=seed, scale=scale) for seed, kind in enumerate(kinds)]
    strokes = torch.zeros(2, scale * SIZE, scale * SIZE)
    strokes[0, 10, 5:40], strokes[1, 30:50, 20] = 1, 1
    return [*prompts, PixelPrompts(scribbles=strokes)]
