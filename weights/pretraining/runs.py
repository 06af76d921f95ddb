"""Runs of neighbouring slices: the network's own answer is the prompt of the next slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pretraining.episodes import Case, choose_target, crop_matrix, normalise_crop
from pretraining.faults import faulty_logits
from promptseg.backbones.base import PixelPrompts
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.pixel_prompts import box_prompt, click_prompt, rough_prompt
from promptseg.finetune.augment import augment
from promptseg.finetune.warping import warp

STEPS = 4
# How far a run may begin from the target's last slice, in steps: so many of its slices lie beyond.
NEAR_END = 0.5
# Share of the crop's side that a sheared target moves from one slice of a run to the next.
MOST_MOVED = 0.06


@dataclass
class Start:
    """The slice that hands its mask to a run far from the prompted slice.

    Args:
        image: (3, S, S) in [0, 1].
        logits: (S / 2, S / 2) of its mask, with the faults that a track gathers on its way.
        away: Distance from the prompted slice in sides of the crop.
    """

    image: Tensor
    logits: Tensor
    away: float


@dataclass
class Run:
    """Slices in a row, the first with a prompt.

    Args:
        images: (N, 3, S, S) in [0, 1].
        targets: (N, S / 2, S / 2) share of each pixel inside the target; empty beyond its end.
        prompt: On the first slice.
        apart: Distance of two slices in sides of the crop.
        start: What comes before the second slice; None for the first.
    """

    images: Tensor
    targets: Tensor
    prompt: PixelPrompts
    apart: float
    start: Start | None = None

    def away(self, n: int) -> tuple[float, float]:
        """Distances of slice `n` from the one before it and from the prompted one, in sides."""
        return self.apart, self.apart * n + (0.0 if self.start is None else self.start.away)


def run_episode(
    case: Case,
    size: int,
    rng: np.random.Generator,
    length: int = STEPS,
    moved: float = 0.0,
    far: float = 0.0,
) -> Run | None:
    """A run through a target, often over its end; None if the draw had no usable one.

    Args:
        case: The volume.
        size: Side of the crops in pixels.
        rng: Draws all.
        length: Slices in a row.
        moved: Share of runs whose slices are sheared, as those of an oblique target are.
        far: Share of runs that begin anywhere beyond the prompted slice, with a faulty mask.
    """
    axis = int(rng.choice(case.axes))
    way = _way(case, axis, length, far, rng)
    if way is None:
        return None
    labels, index, step, key = way.labels, way.index, way.step, way.key
    stacks = [case.slice_stack(axis, n) for n in way.indices]
    masks = [np.isin(labels_[..., 1], labels) for _, labels_ in stacks]
    row_mm, col_mm = (s for a, s in enumerate(case.spacing) if a != axis)
    here = masks[0 if key is None else 1]
    if here.sum() < 12:
        return None
    reference = here if rng.random() < 0.5 else np.any(masks, axis=0)
    matrix = crop_matrix(users.tight_box(reference), reference.shape, (row_mm, col_mm), size, rng)
    # Pixels of the crop from one slice of the volume to the next.
    slanted = key is None and rng.random() < moved
    shear = rng.uniform(-1, 1, 2) * MOST_MOVED * size if slanted else np.zeros(2)
    shear = shear / step
    matrices = [sheared(matrix, shear * (i - index)) for i in way.indices]
    planes = np.stack(
        [warp(m.astype(np.uint8), x, size) for m, x in zip(masks, matrices, strict=True)]
    )
    if min((planes[n] > 0.5).sum() for n in range(1 if key is None else 2)) < 12:
        return None
    views = [_view(image, x, shear, size, case.ground)
             for (image, _), x in zip(stacks, matrices, strict=True)]  # fmt: skip
    images = _images(case, views, planes[0] > 0.5, rng)
    targets = functional.avg_pool2d(torch.from_numpy(planes)[:, None], 2)[:, 0]
    side = size * float(np.abs(np.linalg.det(matrix[:, :2]) * row_mm * col_mm)) ** 0.5
    unit = case.spacing[axis] / side
    run = Run(images, targets, _first_prompt(planes[0] > 0.5, rng), abs(step) * unit)
    return run if key is None else _begun_far(run, abs(index - key) * unit, rng)


@dataclass(frozen=True)
class _Way:
    """Where a run leads.

    Args:
        labels: Of its target.
        index: Its first slice.
        step: From one slice to the next, signed.
        key: The prompted slice where that lies far behind; None where it is the first.
        indices: All slices, `key` before the others.
    """

    labels: tuple[int, ...]
    index: int
    step: int
    key: int | None
    indices: list[int]


def _way(case: Case, axis: int, length: int, far: float, rng: np.random.Generator) -> _Way | None:
    """A way through a target of a case, None if it would leave the volume."""
    count = case.image.shape[axis]
    chosen = choose_target(case, axis, rng) if count > length else None
    if chosen is None:
        return None
    index, labels = chosen
    step = int(rng.integers(1, case.reach(axis) + 1)) * (1 if rng.random() < 0.5 else -1)
    if rng.random() < NEAR_END:
        index = _near_end(case, axis, labels, step * (length - 1), rng)
    indices = [index + step * n for n in range(length)]
    key = _key_behind(case, axis, labels, index, step, rng) if rng.random() < far else None
    indices = indices if key is None else [key, *indices]
    if not (min(indices) >= 0 and max(indices) < count):
        return None
    return _Way(labels, index, step, key, indices)


def _key_behind(
    case: Case, axis: int, labels: tuple[int, ...], index: int, step: int, rng: np.random.Generator
) -> int | None:
    """A slice of the target from which `step` leads to `index`; None where it begins there."""
    slices = _slices(case, axis, labels)
    behind = slices[(index - slices) * np.sign(step) > 0]
    return int(rng.choice(behind)) if len(behind) else None


def _begun_far(run: Run, away: float, rng: np.random.Generator) -> Run | None:
    """The second slice taken out, as what hands a faulty mask to the third."""
    mask = run.targets[1].numpy() > 0.5
    if not mask.any():
        return None
    grey = functional.avg_pool2d(run.images[1, 1:2], 2)[0].numpy()
    logits = torch.from_numpy(faulty_logits(mask[None], grey[None], rng)[0])
    kept = [0, *range(2, len(run.images))]
    start = Start(run.images[1], logits, away)
    return Run(run.images[kept], run.targets[kept], run.prompt, run.apart, start)


def sheared(matrix: NDArray[np.float32], pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    """A crop's matrix, moved by some of its pixels (x, y)."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ pixels
    return moved.astype(np.float32)


def _view(
    stack: NDArray[np.generic],
    matrix: NDArray[np.float32],
    shear: NDArray[np.float64],
    size: int,
    ground: float,
) -> NDArray[np.float32]:
    """(S, S, 3) of a slice and those beside it, which a shear moves too."""
    if not shear.any():
        return warp(stack, matrix, size, ground)
    planes = [warp(stack[..., n], sheared(matrix, shear * (n - 1)), size, ground) for n in range(3)]
    return np.stack(planes, -1)


def _near_end(
    case: Case, axis: int, labels: tuple[int, ...], reach: int, rng: np.random.Generator
) -> int:
    """A slice of the target from which `reach` slices, signed, lead over its end."""
    slices = _slices(case, axis, labels)
    last = slices[-1] if reach > 0 else slices[0]
    near = slices[np.abs(slices - last) < abs(reach)]
    return int(rng.choice(near))


def _slices(case: Case, axis: int, labels: tuple[int, ...]) -> NDArray[np.intp]:
    """Slices that hold some of the target."""
    held = [case.extents[axis].get(x, np.zeros(0, int)) for x in labels]
    return np.unique(np.concatenate(held))


def _images(
    case: Case,
    views: list[NDArray[np.float32]],
    inside: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Tensor:
    """The slices in one window, all changed by the same augmentation."""
    window, change = (int(n) for n in rng.integers(0, 2**31, 2))
    images: list[Tensor] = []
    first = views[0]
    for crop in views:
        # The window of CT follows the target's grey values on the first slice.
        pair = np.stack([crop[..., 0], first[..., 1], crop[..., 2], crop[..., 1]], -1)
        grey = normalise_crop(pair, case, inside, np.random.default_rng(window))
        grey = np.ascontiguousarray(grey[..., [0, 3, 2]])
        changed = augment(grey, np.random.default_rng(change), case.modality != "CT")
        images.append(torch.from_numpy(np.ascontiguousarray(changed.transpose(2, 0, 1))))
    return torch.stack(images)


def _first_prompt(target: NDArray[np.bool_], rng: np.random.Generator) -> PixelPrompts:
    draw = rng.random()
    if draw < 0.6:
        return box_prompt(target, rng)
    return click_prompt(target, rng) if draw < 0.8 else rough_prompt(target, rng)
