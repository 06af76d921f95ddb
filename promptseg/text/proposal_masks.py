"""All the masks that a network sees on a slice, asked for nothing in particular.

Segment Anything's automatic masks (Kirillov et al., ICCV 2023, section 5 and appendix B): a grid
of single clicks, three candidates each, of which those stay that the network trusts, that hardly
change with the threshold, and that no better one repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from promptseg.backbones.base import Embedding, PixelPrompts, PromptBatch
from promptseg.errors import PromptError
from promptseg.inference.decoder import ABSENT_LOGIT, SliceDecoder
from promptseg.inference.device import autocast
from promptseg.inference.multimask import plane_mask
from promptseg.volume.slicing import Frame, in_plane

MOST_CANDIDATES = 512


@dataclass(frozen=True)
class MaskRules:
    """Which masks are worth looking at.

    Args:
        grid: Clicks along the longer side of the view.
        quality: Least predicted overlap.
        stability: Least overlap of the masks at `offset` above and below the threshold.
        offset: In logits.
        overlap: Of two masks that overlap more, the less trusted one goes.
        least_voxels: Smaller masks go.
        most_share: Masks that fill more of the view go.
    """

    grid: int = 16
    quality: float = 0.7
    stability: float = 0.85
    offset: float = 1.0
    overlap: float = 0.7
    least_voxels: int = 16
    most_share: float = 0.6

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= 128:
            raise PromptError(f"grid is {self.grid}: use 1 to 128 clicks a side")
        for item in fields(self):
            value = getattr(self, item.name)
            if not value >= 0:
                raise PromptError(f"{item.name} is {value}: use a number of at least 0")


@dataclass(frozen=True)
class Candidate:
    """A mask of something.

    Args:
        mask: (H, W) bool on the whole slice.
        quality: Predicted overlap with whatever it is, in [0, 1].
        stability: Overlap in [0, 1] of the mask with itself at another threshold.
    """

    mask: np.ndarray
    quality: float
    stability: float


@dataclass(frozen=True)
class _Seen:
    """N masks: (N, m, m) logits, (N,) quality, (N,) stability."""

    logits: Tensor
    quality: Tensor
    stability: Tensor

    def __getitem__(self, rows: Tensor) -> _Seen:
        return _Seen(self.logits[rows], self.quality[rows], self.stability[rows])


def automatic_masks(
    decoder: SliceDecoder, frame: Frame, index: int, rules: MaskRules | None = None
) -> list[Candidate]:
    """Distinct trusted masks of one slice, the most trusted first.

    Args:
        decoder: Of the volume.
        frame: The view.
        index: Slice along the frame's axis.
        rules: What to keep.
    """
    rules = MaskRules() if rules is None else rules
    embedding = decoder.encoder.embed(frame, [index])
    points = torch.from_numpy(grid_points(frame, rules.grid)).float()
    shown = shown_pixels(frame, decoder.backbone.spec.mask_size)
    parts = [
        _trusted(_decode(decoder, embedding, chunk, shown), frame, shown, rules)
        for chunk in points.split(decoder.batch_size)
    ]
    seen = _Seen(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(_Seen)))
    best = seen[torch.argsort(seen.quality, descending=True, stable=True)[:MOST_CANDIDATES]]
    kept = best[distinct((best.logits > 0).flatten(1), rules.overlap)]
    return _placed(kept, frame)


def grid_points(frame: Frame, count: int) -> np.ndarray:
    """(N, 2) x, y in input pixels: the middles of `count` squares along the longer side."""
    height, width = frame.valid
    step = max(height, width) / count
    rows, cols = max(1, round(height / step)), max(1, round(width / step))
    y = (np.arange(rows) + 0.5) * height / rows
    x = (np.arange(cols) + 0.5) * width / cols
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def shown_pixels(frame: Frame, side: int) -> Tensor:
    """(side, side) bool: the pixels of a mask that lie in the image, not in the padding."""
    rows, cols = in_plane(frame.axis)
    inside = frame.project(np.ones((frame.shape[rows], frame.shape[cols]), np.float32), side)
    return inside > 0.5


def distinct(masks: Tensor, overlap: float) -> Tensor:
    """Rows of (N, P) bool masks, the best first, that no earlier one kept overlaps too much.

    Returns:
        (K,) row numbers; the intersection over union of any two is at most `overlap`.
    """
    flat = masks.float()
    areas = flat.sum(1)
    shared = flat @ flat.T
    repeats = shared > overlap * (areas[:, None] + areas[None] - shared)
    kept = torch.ones(len(masks), dtype=torch.bool)
    for row in range(len(masks)):
        if kept[row]:
            kept[row + 1 :] &= ~repeats[row, row + 1 :]
    return torch.nonzero(kept)[:, 0]


@torch.inference_mode()
def _decode(decoder: SliceDecoder, embedding: Embedding, points: Tensor, shown: Tensor) -> _Seen:
    """Three candidates of each of N clicks; nothing where there is no image."""
    backbone, encoder = decoder.backbone, decoder.encoder
    clicks = [PixelPrompts(point[None], torch.ones(1, dtype=torch.long)) for point in points]
    batch = PromptBatch.collate(clicks, backbone.spec.input_size, backbone.spec.mask_size)
    with autocast(encoder.device, encoder.precision):
        decoded = backbone.decode(embedding[[0] * len(points)], batch.to(encoder.device), True)
    decoder.decoded += len(points)
    logits = decoded.logits.float().cpu().masked_fill(~shown, ABSENT_LOGIT)
    quality = decoded.quality.float().cpu()
    if decoded.presence is not None:
        quality = quality * (decoded.presence.float().cpu() >= 0.5)[:, None]
    flat = logits.flatten(0, 1)
    return _Seen(flat, quality.flatten(), torch.zeros(len(flat)))


def _trusted(seen: _Seen, frame: Frame, shown: Tensor, rules: MaskRules) -> _Seen:
    flat = seen.logits.flatten(1)
    sure, wide = (flat > rules.offset).sum(1), (flat > -rules.offset).sum(1)
    stability = sure / wide.clamp(min=1)
    share = (flat > 0).sum(1) / shown.sum()
    height, width = frame.region.shape
    kept = (seen.quality >= rules.quality) & (stability >= rules.stability)
    kept &= (share * height * width >= rules.least_voxels) & (share <= rules.most_share)
    return _Seen(seen.logits, seen.quality, stability)[kept]


def _placed(seen: _Seen, frame: Frame) -> list[Candidate]:
    """On the whole slice; masks that have no voxel of it are left out."""
    candidates = []
    for logits, quality, stability in zip(seen.logits, seen.quality, seen.stability, strict=True):
        plane = plane_mask(frame, logits)
        if plane.any():
            candidates.append(Candidate(plane, float(quality), float(stability)))
    return candidates
