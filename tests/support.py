"""Backbones and volumes for tests of everything above the backbones.

`BrightRegion` has no weights: its mask is what is bright and connected to the prompts, so that
a propagation has one right answer. `tiny_default` is the default network with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding, PixelPrompts, PromptBatch
from promptseg.backbones.default import DefaultBackbone
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.backbones.segment_anything import SegmentAnything, build_sam
from promptseg.backbones.standins import SMALL_SAM
from promptseg.inference.encoder import SliceEncoder
from promptseg.session import Segmenter
from promptseg.volume import Volume

SIZE = 64
EIGHT = np.ones((3, 3))
Path = Mapping[int, tuple[float, float, float]]


class BrightRegion:
    """Picks the 8-connected regions above one half that the prompts point at.

    Foreground clicks and strokes take the region under them, a box those that lie in it by
    half, a mask those that it overlaps; background clicks and strokes take regions away. With
    `multimask` the second of three candidates is that answer and has the greatest quality.

    Args:
        size: Side of input and masks.
        family: `promptseg` is handed masks by the engine, any other family boxes.
        crop: As in the spec.
        fits: Batches above this run out of memory.
        name: Part of the spec.
    """

    def __init__(
        self,
        size: int = SIZE,
        family: str = "promptseg",
        crop: bool = True,
        fits: int = 1 << 30,
        name: str = "bright",
    ) -> None:
        self.module: torch.nn.Module = torch.nn.Identity()
        ours = family == "promptseg"
        self.spec = BackboneSpec(
            name, family, size, size, "grey", crop, True, sha256=name,
            propagates="mask" if ours else "box",
        )  # fmt: skip
        self.fits = fits
        self.batches: list[int] = []
        self.images: list[Tensor] = []
        self.asked: list[PromptBatch] = []

    @property
    def encoded(self) -> int:
        """Slices encoded so far."""
        return sum(self.batches)

    def encode(self, images: Tensor) -> Embedding:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError(f"{len(images)} images")
        self.batches.append(len(images))
        self.images.append(images)
        return Embedding((images[:, 1:2],))

    def decode(
        self, embedding: Embedding, prompts: PromptBatch, multimask: bool = False
    ) -> Decoded:
        self.asked.append(prompts)
        rows = [
            self._answer(grey[0].float().numpy(), prompts, row)
            for row, grey in enumerate(embedding.features[0])
        ]
        logits = torch.stack([torch.from_numpy(row) for row in rows]).float()[:, None]
        quality = torch.full((len(rows), 1), 0.9)
        if multimask:
            logits = torch.cat([torch.full_like(logits, -8), logits, -logits], dim=1)
            quality = torch.tensor([[0.3, 0.9, 0.5]]).expand(len(rows), 3)
        found = torch.tensor([float((row > 0).any()) for row in rows])
        return Decoded(logits, quality, found)

    def _answer(self, grey: np.ndarray, prompts: PromptBatch, row: int) -> np.ndarray:
        regions, count = ndimage.label(grey > 0.5, EIGHT)
        kept, taken = np.zeros(count + 1, bool), np.zeros(count + 1, bool)
        for (x, y), label in zip(prompts.points[row], prompts.labels[row], strict=True):
            side = len(grey)
            if label >= 0 and 0 <= x < side and 0 <= y < side:
                (kept if label else taken)[regions[int(y), int(x)]] = True
        if prompts.scribbles is not None:
            for side, stroke in zip((kept, taken), prompts.scribbles[row], strict=True):
                side[np.unique(regions[stroke.numpy() > 0])] = True
        if prompts.has_box[row]:
            x0, y0, x1, y1 = prompts.boxes[row].numpy()
            centres = np.arange(len(grey)) + 0.5
            inside = ((centres > y0) & (centres < y1))[:, None] & (centres > x0) & (centres < x1)
            share = ndimage.mean(inside, regions, np.arange(count + 1))
            kept |= np.nan_to_num(share) >= 0.5
        if prompts.has_mask[row]:
            kept[np.unique(regions[prompts.masks[row, 0].numpy() > 0])] = True
        kept[0] = taken[0] = False
        near = ndimage.binary_dilation((kept & ~taken)[regions], EIGHT)
        return np.where(near, (grey - 0.5) * 16, -8.0)


class Looks(torch.nn.Module):
    """A network of a coarse view that marks what is bright, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.count += len(x)
        return (x[:, 0] - 0.5) * 20, torch.zeros(len(x))


def tiny_network(
    seed: int = 0, image_size: int = SIZE, names: Sequence[str] = ()
) -> PromptsegModel:
    """The default network, narrow and with random weights."""
    torch.manual_seed(seed)
    config = PromptsegConfig(
        image_size=image_size,
        stem=(8, 16, 16),
        hidden_size=32,
        depth=1,
        heads=2,
        decoder=(32, 16, 16, 8),
        names=names,
    )
    return PromptsegModel(config).eval()


def tiny_default(seed: int = 0, names: Sequence[str] = ()) -> DefaultBackbone:
    """`tiny_network` behind the backbone protocol."""
    return DefaultBackbone(tiny_network(seed, names=names), name=f"tiny{seed}")


def ragged_prompts(size: int = SIZE) -> list[PixelPrompts]:
    """One to seven kinds of prompts in (size, size), no two of the same shape."""
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, size, (6, 2))).float()
    mask = torch.from_numpy(rng.normal(0, 5, (size // 2, size // 2))).float()
    box = torch.tensor([10.0, 12.5, 40.0, 51.0])
    strokes = torch.zeros(2, size, size)
    strokes[0, 20, 5:40], strokes[1, 30:50, 20] = 1, 1
    return [
        PixelPrompts(points[:1], torch.tensor([1])),
        PixelPrompts(points[:4], torch.tensor([1, 0, 0, 1])),
        PixelPrompts(box=box),
        PixelPrompts(mask=mask),
        PixelPrompts(points[2:5], torch.tensor([0, 1, 1]), box, mask),
        PixelPrompts(scribbles=strokes),
        PixelPrompts(points[5:], torch.tensor([0]), box, None, strokes),
    ]


def discs(shape: Sequence[int], axis: int, path: Path) -> np.ndarray:
    """(I, J, K) bool: on slice n a disc (row, column, radius) = path[n] across `axis`."""
    mask = np.zeros(shape, bool)
    planes = np.moveaxis(mask, axis, 0)
    rows, columns = np.indices(planes.shape[1:])
    for index, (row, column, radius) in path.items():
        planes[index] |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return mask


def bright_volume(
    mask: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0), modality: str = "MR"
) -> Volume:
    """An image that is 100 in a bool mask and 0 elsewhere."""
    return Volume(mask.astype(np.int16) * 100, np.diag([*spacing, 1.0]), modality)  # type: ignore[arg-type]


def grey(mask: np.ndarray) -> np.ndarray:
    """The same in [0, 1], as the encoder takes it."""
    return mask.astype(np.float32)


def bright_encoder(
    mask: np.ndarray, backbone: BrightRegion | None = None, **options: object
) -> SliceEncoder:
    """Encoder of a bool mask as the image."""
    chosen = BrightRegion() if backbone is None else backbone
    return SliceEncoder(chosen, grey(mask), "image", torch.device("cpu"), "fp32", **options)  # type: ignore[arg-type]


def segmenter(backbone: object | None = None, **options: object) -> Segmenter:
    """A segmenter on the CPU in float32, over `BrightRegion` unless told otherwise."""
    chosen = BrightRegion() if backbone is None else backbone
    return Segmenter(chosen, **{"device": "cpu", "precision": "fp32", **options})  # type: ignore[arg-type]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two bool masks; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def filled(mask: np.ndarray, axis: int) -> list[int]:
    """Slices along `axis` on which a mask has voxels."""
    others = tuple(a for a in range(3) if a != axis)
    return np.flatnonzero(mask.any(others)).tolist()


TINY_SAM = replace(
    SMALL_SAM,
    image_size=SIZE,
    patch_size=8,
    width=32,
    depth=2,
    hidden=64,
    window=3,
    global_blocks=(1,),
    channels=32,
    decoder_hidden=64,
    quality_hidden=32,
)


def tiny_sam(seed: int = 0) -> SegmentAnything:
    """A SAM of two blocks with random weights."""
    torch.manual_seed(seed)
    return SegmentAnything(build_sam(TINY_SAM, SIZE).state_dict(), name=f"sam{seed}")
