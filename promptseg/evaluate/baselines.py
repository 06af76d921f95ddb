"""Classical methods on the same prompts, so that a number can be compared with something.

Each takes a `Scene` and gives a bool mask of its image's shape, or None where its prompts say
too little for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import random_walker

from promptseg.datasets.simulation.clicks import Mask
from promptseg.refine import plain_graph_cut
from promptseg.volume import bounding_slices, pasted

Corners = tuple[tuple[int, ...], tuple[int, ...]]
CORE = 0.6
DISC = 2
_ROOM = 0.5
_MOST_ELEMENTS = 400_000
_GRABCUT_ROUNDS = 5
_BETA = 130


@dataclass(frozen=True, eq=False)
class Scene:
    """Image and prompts of one view.

    Args:
        image: (H, W) or (I, J, K) float32 in [0, 1].
        spacing: Millimetres along each axis.
        inside: Bool, true at foreground clicks and strokes.
        outside: Bool, true at background clicks and strokes.
        box: Half-open corners of the given box, one slice thick in a volume; None without one.
        probability: The network's foreground probability after the first prompts, or None.
    """

    image: NDArray[np.float32]
    spacing: tuple[float, ...]
    inside: Mask
    outside: Mask
    box: Corners | None = None
    probability: NDArray[np.float32] | None = None


def ellipse(scene: Scene) -> Mask | None:
    """The ellipse inscribed in the box, else in the box of the strokes; None for lone clicks."""
    box = scene.box or extent(scene.inside)
    if box is None or min(np.subtract(box[1], box[0])) < 2:
        return None
    return inscribed(scene.image.shape, box, 1.0)


def grabcut(scene: Scene) -> Mask | None:
    """GrabCut of OpenCV (Rother et al., SIGGRAPH 2004) around the prompts.

    Outside the box is background for certain, inside it probably foreground, and its core
    foreground for certain, which does better than the box alone. Without a box the frame of the
    image is background. Clicks and strokes are certain.
    """
    inside, outside = hard_seeds(scene)
    states = np.full(scene.image.shape, cv2.GC_PR_BGD, np.uint8)
    if scene.box is not None:
        states[:] = cv2.GC_BGD
        states[filled_box(scene)] = cv2.GC_PR_FGD
        states[inscribed(scene.image.shape, scene.box, CORE)] = cv2.GC_FGD
    else:
        states[frame_of(states.shape)] = cv2.GC_BGD
    states[outside], states[inside] = cv2.GC_BGD, cv2.GC_FGD
    foreground = states % 2 == 1  # both foreground states are odd
    if not foreground.any() or foreground.all():
        return foreground
    image = np.repeat((scene.image * 255).astype(np.uint8)[..., None], 3, -1)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    everywhere = (0, 0, *states.shape[::-1])
    cv2.grabCut(image, states, everywhere, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return states % 2 == 1


def walker(scene: Scene) -> Mask | None:
    """Random walker of scikit-image (Grady, TPAMI 2006) around the prompts.

    Seeds: an ellipse in the core of the box, clicks and strokes inside; everything around the
    box, clicks and strokes outside. Without a box the frame of the view is background.
    """
    window = working_window(scene)
    inside, outside = hard_seeds(scene)
    if scene.box is not None:
        inside |= inscribed(scene.image.shape, scene.box, CORE) & ~outside
        plane = tuple(slice(lo, hi) if hi - lo == 1 and scene.image.ndim == 3 else slice(None)
                      for lo, hi in zip(*scene.box, strict=True))  # fmt: skip
        around = np.zeros_like(outside)
        around[plane] = ~filled_box(scene)[plane]
        outside |= around & ~inside
    seeds = np.where(inside, 2, np.where(outside, 1, 0))[window].astype(np.int32)
    seeds[frame_of(seeds.shape) & (seeds == 0)] = 1
    if not (seeds == 2).any() or not (seeds == 0).any() or not np.ptp(scene.image[window]):
        return inside
    return pasted(_walk(scene.image[window], seeds, scene.spacing), window, scene.image.shape)


def graph_cut(scene: Scene) -> Mask | None:
    """Plain graph cut on the network's first answer, clicks and strokes as hard constraints."""
    if scene.probability is None:
        return None
    only_inside = scene.inside & ~scene.outside
    return plain_graph_cut(
        scene.probability, scene.image, only_inside, scene.outside, scene.spacing
    )


BASELINES: dict[str, Callable[[Scene], Mask | None]] = {
    "ellipse": ellipse,
    "grabcut": grabcut,
    "random_walker": walker,
    "graph_cut": graph_cut,
}


def _walk(image: NDArray[np.float32], seeds: NDArray[np.int32], spacing: tuple[float, ...]) -> Mask:
    """Bool answer, on every n-th element where the image is large."""
    step = int(np.ceil((image.size / _MOST_ELEMENTS) ** (1 / image.ndim)))
    coarse, labels = image, seeds
    if step > 1:
        coarse = image[(slice(None, None, step),) * image.ndim]
        labels = coarse_seeds(seeds, step)
        spacing = tuple(s * step for s in spacing)
    answer = random_walker(
        coarse.astype(np.float64),
        labels,
        beta=_BETA,
        mode="cg_j",
        prob_tol=1.0,
        spacing=np.array(spacing),
    )
    fine = answer == 2
    for axis in range(image.ndim if step > 1 else 0):
        fine = np.repeat(fine, step, axis).take(range(image.shape[axis]), axis)
    return fine


def coarse_seeds(seeds: NDArray[np.int32], step: int) -> NDArray[np.int32]:
    """Seeds on every n-th element; a block takes its largest value, foreground being 2."""
    padded = np.pad(seeds, [(0, -side % step) for side in seeds.shape])
    shape = [n for side in padded.shape for n in (side // step, step)]
    return padded.reshape(shape).max(tuple(range(1, 2 * seeds.ndim, 2)))


def hard_seeds(scene: Scene) -> tuple[Mask, Mask]:
    """Foreground and background clicks grown to small discs, never overlapping."""
    inside, outside = disc(scene.inside), disc(scene.outside)
    both = inside & outside
    return (inside & ~both) | scene.inside, (outside & ~both & ~scene.inside) | (
        scene.outside & ~scene.inside
    )


def disc(seeds: Mask) -> Mask:
    """Seeds grown by `DISC` elements."""
    if not seeds.any():
        return seeds.copy()
    return ndimage.binary_dilation(seeds, iterations=DISC)


def extent(seeds: Mask) -> Corners | None:
    """Corners of the box around seeds; None without any."""
    box = bounding_slices(seeds)
    return None if box is None else (tuple(s.start for s in box), tuple(s.stop for s in box))


def filled_box(scene: Scene) -> Mask:
    """True within the box of a scene that has one."""
    filled = np.zeros(scene.image.shape, bool)
    if scene.box is not None:
        filled[tuple(slice(lo, hi) for lo, hi in zip(*scene.box, strict=True))] = True
    return filled


def inscribed(shape: tuple[int, ...], box: Corners, size: float) -> Mask:
    """Ellipse in a half-open box, its axes `size` times the box's sides."""
    total = np.zeros(shape, np.float32)
    for axis, (lo, hi) in enumerate(zip(*box, strict=True)):
        place = np.arange(shape[axis]) + 0.5 - (lo + hi) / 2
        radius = (hi - lo) / 2 * (size if hi - lo > 1 else 1)
        sides = [1] * len(shape)
        sides[axis] = -1
        thin = np.where(np.abs(place) < 0.5, 0.0, np.inf) if hi - lo == 1 else (place / radius) ** 2
        total = total + thin.reshape(sides)
    return total <= 1


def frame_of(shape: tuple[int, ...]) -> Mask:
    """True on the outermost elements along every axis longer than two."""
    inner = tuple(slice(1, -1) if side > 2 else slice(None) for side in shape)
    frame = np.ones(shape, bool)
    frame[inner] = False
    return frame


def working_window(scene: Scene) -> tuple[slice, ...]:
    """Where a baseline works: the box and all seeds with half their side around; else all.

    A box on one slice of a volume also says how far the target may reach across the slices:
    as far as its mean side in millimetres, half of it on either side.
    """
    if scene.box is None:
        return tuple(slice(0, side) for side in scene.image.shape)
    seeds = bounding_slices(filled_box(scene) | scene.inside | scene.outside)
    sides = np.subtract(scene.box[1], scene.box[0])
    reach = [side * s for side, s in zip(sides, scene.spacing, strict=True) if side > 1]
    window = []
    for axis, part in enumerate(seeds or ()):
        extra = (part.stop - part.start) * _ROOM
        if sides[axis] == 1 and scene.image.ndim == 3 and reach:
            extra = float(np.mean(reach)) / 2 / scene.spacing[axis]
        extra = max(3, int(np.ceil(extra)))
        stop = min(scene.image.shape[axis], part.stop + extra)
        window.append(slice(max(0, part.start - extra), stop))
    return tuple(window)
