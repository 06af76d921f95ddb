"""Episodes without a prompt: the same view asked for several structures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pretraining.episodes import Case, normalise_crop
from promptseg.datasets.simulation import users
from promptseg.finetune.augment import augment
from promptseg.finetune.views import view_matrix
from promptseg.finetune.warping import warp

ASKED = 3
WHOLE, TURNED, ABSENT = 0.5, 0.5, 0.15
LEAST_PIXELS = 12


@dataclass
class NamedCase(Case):
    """A case whose labels have names.

    Args:
        names: Concept by label, for labels that training calls by name.
        groups: Concept by set of labels, for wholes with a name of their own.
        body: Part of the body, in the words of its manifest.
        sided: True if left and right are known: it lies in the orientation networks see.
    """

    names: dict[int, str] = field(default_factory=dict)
    groups: dict[tuple[int, ...], str] = field(default_factory=dict)
    body: str = ""
    sided: bool = True

    @property
    def called(self) -> dict[str, tuple[int, ...]]:
        """Labels that make up each concept of this case."""
        return {**{name: (label,) for label, name in self.names.items()},
                **{name: labels for labels, name in self.groups.items()}}  # fmt: skip


@dataclass
class NamedEpisode:
    """A view and what it is asked for.

    Args:
        image: (3, S, S) in [0, 1].
        masks: (ASKED, S / 2, S / 2) share of each pixel inside each structure.
        concepts: (ASKED,) numbers of the concepts.
    """

    image: Tensor
    masks: Tensor
    concepts: Tensor


def named_episode(
    case: NamedCase,
    size: int,
    numbers: Mapping[str, int],
    foreign: Sequence[str],
    rng: np.random.Generator,
) -> NamedEpisode | None:
    """Ask a view of a case for a structure it shows, for others of its set, and for foreign ones.

    Only the case's own names and names of other parts of the body are asked: what a set did not
    label may well be there.

    Args:
        case: With names.
        size: Side of the view.
        numbers: Number by concept.
        foreign: Concepts that are certainly not in this part of the body.
        rng: Draws all.

    Returns:
        None if the draw had no usable view.
    """
    axis = int(rng.choice(case.axes))
    called = {name: labels for name, labels in case.called.items() if name in numbers}
    shown = [n for n, labels in called.items() if any(x in case.extents[axis] for x in labels)]
    if not shown:
        return None
    name = shown[int(rng.integers(len(shown)))]
    index = _slice_for(case, axis, called[name], rng)
    image, stack = case.slice_stack(axis, index)
    labels = stack[..., 1]
    matrix = _matrix(case, axis, index, called[name], size, rng)
    crop = warp(image, matrix, size, case.ground)
    planes = {n: warp(np.isin(labels, x).astype(np.uint8), matrix, size) for n, x in called.items()}
    asked = _asked(name, planes, foreign, rng)
    masks = np.stack([planes.get(n, np.zeros((size, size), np.float32)) for n in asked], -1)
    grey = normalise_crop(crop, case, planes[name] > 0.5, rng)
    grey = augment(grey, rng, invert=False)
    if rng.random() < 0.15:
        grey = np.repeat(grey[..., 1:2], 3, -1)
    sided = case.sided and any("left" in n or "right" in n for n in asked)
    if not sided and rng.random() < TURNED:
        grey, masks = turned(grey, masks, rng)
    small = functional.avg_pool2d(_channels(masks), 2)
    return NamedEpisode(_channels(grey), small, torch.tensor([numbers[n] for n in asked]))


def turned(
    image: NDArray[np.float32], masks: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One of the eight symmetries of a square, the same for image and masks."""
    quarters, mirrored = int(rng.integers(4)), rng.random() < 0.5

    def turn(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data = np.rot90(data, quarters)
        return data[:, ::-1] if mirrored else data

    return turn(image), turn(masks)


def _channels(data: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(data.transpose(2, 0, 1)))


def _slice_for(
    case: NamedCase, axis: int, labels: tuple[int, ...], rng: np.random.Generator
) -> int:
    """A slice with the structure, now and then any slice."""
    if rng.random() < ABSENT:
        return int(rng.integers(case.image.shape[axis]))
    found = [case.extents[axis][x] for x in labels if x in case.extents[axis]]
    return int(rng.choice(np.concatenate(found)))


def _matrix(
    case: NamedCase,
    axis: int,
    index: int,
    labels: tuple[int, ...],
    size: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The whole slice, or a view around the structure as all slices show it."""
    row_mm, col_mm = (s for a, s in enumerate(case.spacing) if a != axis)
    shape = tuple(n for a, n in enumerate(case.image.shape) if a != axis)
    whole = np.array([0, 0, shape[1], shape[0]], np.float32)
    if rng.random() < WHOLE:
        return view_matrix(whole, rng.uniform(0.8, 1.1), (row_mm, col_mm), size, rng, 0.2)
    plane = np.take(case.labels, index, axis)
    mask = np.isin(plane, labels)
    if rng.random() < 0.5 or not mask.any():
        mask = case.shadow(axis, labels)
    box = users.tight_box(mask)
    factor = float(np.exp(rng.uniform(np.log(1.3), np.log(3.5))))
    return view_matrix(box, factor, (row_mm, col_mm), size, rng, 0.35)


def _asked(
    name: str,
    planes: Mapping[str, NDArray[np.float32]],
    foreign: Sequence[str],
    rng: np.random.Generator,
) -> list[str]:
    """The structure itself, another of its set, and one that the view does not show."""
    shows = {n for n, plane in planes.items() if (plane > 0.5).sum() >= LEAST_PIXELS}
    others = [n for n in planes if n != name]
    asked = [name]
    seen = [n for n in others if n in shows]
    if seen:
        asked.append(seen[int(rng.integers(len(seen)))])
    blank = [n for n in others if n not in shows]
    pool = blank if blank and rng.random() < 0.5 else list(foreign)
    while len(asked) < ASKED:
        asked.append(pool[int(rng.integers(len(pool)))])
        pool = list(foreign)
    return asked
