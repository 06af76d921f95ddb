"""The coarse 3D view: where a target lies and ends, seen at once in a cube around its prompts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from promptseg.errors import AdapterError, PromptError, WeightsError
from promptseg.propagation.coarse_cube import Cube
from promptseg.propagation.coarse_inputs import (
    ANSWERED,
    CHANNELS,
    PROMPTED,
    CoarseHints,
    coarse_channels,
)
from promptseg.propagation.coarse_network import CoarseNetwork
from promptseg.volume import pasted
from promptseg.weights.described import Described
from promptseg.weights.registry import sha256_file
from promptseg.weights.shipped import shipped_or

NAME = "coarse"
FILE = Described("promptseg-coarse", 1, "coarse view")
# Side of the first view over the longest side of what is prompted: the middle of what training saw.
AROUND = 2.2
# A target that reaches the border is looked at from farther away, so often and by so much.
WIDENED, WIDENINGS = 1.5, 3
# Of a face of the view, filled by the target, from which it goes on beyond: some 9 of 48 x 48.
BORDER_SHARE = 0.004
# Side of the smallest view in voxels: a finer one would show what was interpolated.
LEAST_VOXELS = 17.0
# Elements from an outline beyond which the distance says no more, as the network was trained.
ABSENT = -6.0
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]


@dataclass(frozen=True)
class CoarseAnswer:
    """What the coarse view says of one target.

    Args:
        cube: The view.
        logits: (side, side, side).
        quality: Expected Dice.
    """

    cube: Cube
    logits: Field
    quality: float

    def mask(self, shape: Sequence[int]) -> Mask:
        """(I, J, K) bool on the volume's grid."""
        region, values = self.cube.paste(self.logits, shape)
        return pasted(values > 0, region, shape)


@dataclass(frozen=True)
class Told:
    """What is known of one target, on the volume's grid.

    Args:
        axis: Slice axis.
        masks: (H, W) bool by prompted slice.
        box: (low, high) voxels, half-open; None without one.
        positive: (N, 3) voxels on the target.
        negative: (N, 3) voxels beside it.
        answered: (H, W) bool by slice, what a network answered on its own.
    """

    axis: int
    masks: Mapping[int, Mask]
    box: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    positive: NDArray[np.integer] | None = None
    negative: NDArray[np.integer] | None = None
    answered: Mapping[int, Mask] = field(default_factory=dict)


class CoarseView:
    """Answers in cubes around prompts.

    Args:
        network: Trained by weights/train_coarse.py.
        sha256: Digest of its file, None if it has none.
    """

    def __init__(self, network: CoarseNetwork, sha256: str | None = None) -> None:
        self.network, self.sha256 = network.eval(), sha256

    def to(self, device: torch.device) -> CoarseView:
        """The same on a device."""
        return CoarseView(copy.deepcopy(self.network).to(device), self.sha256)

    def taught(self, parameters: Mapping[str, Tensor]) -> CoarseView:
        """The same with other values of some parameters, as an adapter holds them.

        Raises:
            AdapterError: A parameter is unknown or of another shape.
        """
        own = self.network.state_dict()
        for name, value in parameters.items():
            if name not in own or own[name].shape != value.shape:
                raise AdapterError(
                    f"the adapter's {name} {tuple(value.shape)} does not fit the coarse 3D view: "
                    "train it again"
                )
        network = copy.deepcopy(self.network)
        network.load_state_dict(dict(parameters), strict=False)
        return CoarseView(network, self.sha256)

    def answer(
        self, image: Field, spacing: Sequence[float], told: Told, cube: Cube | None = None
    ) -> CoarseAnswer:
        """Look at a target, from farther away while it reaches the border of the view.

        Args:
            image: (I, J, K) grey values in [0, 1].
            spacing: (3,) mm.
            told: Masks of prompted slices and other prompts.
            cube: The first view; that around the masks if None.

        Raises:
            PromptError: If no mask has a pixel.
        """
        cube = first_cube(told, spacing, image.shape) if cube is None else cube
        for attempt in range(WIDENINGS + 1):
            found = self.look(image, told, cube)
            if attempt == WIDENINGS or not cut_off(found, image.shape):
                break
            cube = replace(cube, length=cube.length * WIDENED, centre=_middle(found))
        return found

    @torch.inference_mode()
    def look(self, image: Field, told: Told, cube: Cube) -> CoarseAnswer:
        """The answer in one view; arguments as in `answer`."""
        channels = coarse_channels(hints_in(image, told, cube))
        device = next(self.network.parameters(), channels).device
        logits, quality = self.network(channels[None].to(device))
        return CoarseAnswer(cube, logits[0].float().cpu().numpy(), float(quality.sigmoid()))


def first_cube(told: Told, spacing: Sequence[float], shape: Sequence[int]) -> Cube:
    """The view around the masks of the prompted slices.

    Raises:
        PromptError: If no mask has a pixel.
    """
    cells = [
        np.insert(np.argwhere(mask), told.axis, index, 1) for index, mask in told.masks.items()
    ]
    places = np.concatenate(cells) if cells else np.zeros((0, 3))
    if not len(places):
        raise PromptError("no prompted slice has a mask: the coarse view has nowhere to look")
    low, high = places.min(0), places.max(0) + 1
    step = np.array(spacing, float)
    longest = float(((high - low) * step).max())
    length = max(longest * AROUND, LEAST_VOXELS * float(step.min()))
    i, j, k = ((low + high) / 2).tolist()
    a, b, c = step.tolist()
    return Cube((i, j, k), length, (a, b, c))


def hints_in(image: Field, told: Told, cube: Cube) -> CoarseHints:
    """What is known, in the elements of a view."""
    view = cube.sample(image, 0.0)
    inside = cube.sample(np.ones(image.shape, bool), 0.0) > 0.5
    logits, trust = _answered_in(told, image.shape, cube)
    for index, mask in told.masks.items():
        planes = cube.planes(told.axis, index)
        np.moveaxis(logits, told.axis, 0)[planes] = _in_plane(mask, told.axis, cube)
        np.moveaxis(trust, told.axis, 0)[planes] = PROMPTED
    box, boxed = _box_in(told, cube)
    positive, negative = (_seeds_in(p, cube) for p in (told.positive, told.negative))
    return CoarseHints(view, inside, logits, trust, box, boxed, positive, negative)


def _answered_in(told: Told, shape: Sequence[int], cube: Cube) -> tuple[Field, Field]:
    """Logits and trust of the slices that a network answered, in the elements of a view."""
    logits, trust = (np.zeros((cube.side,) * 3, np.float32) for _ in range(2))
    if not told.answered:
        return logits, trust
    known = np.zeros(tuple(shape), bool)
    for index, mask in told.answered.items():
        np.moveaxis(known, told.axis, 0)[index] = mask
        np.moveaxis(trust, told.axis, 0)[cube.planes(told.axis, index)] = ANSWERED
    planes = np.moveaxis(cube.sample(known, 0.0) > 0.5, told.axis, 0)
    heights = np.stack([_height(plane) for plane in planes])
    return np.moveaxis(heights, 0, told.axis) * (trust > 0), trust


def _in_plane(mask: Mask, axis: int, cube: Cube) -> Field:
    """(side, side) signed distance in elements of a slice's mask, as logits."""
    a, b = (n for n in range(3) if n != axis)
    step, low = cube.scale[[a, b]], cube.low[[a, b]]
    plane = ndimage.affine_transform(
        mask.astype(np.float32), step, low + step / 2 - 0.5, (cube.side,) * 2, order=1,
        mode="grid-constant", cval=0.0,
    )  # fmt: skip
    return _height(plane > 0.5)


def _height(plane: Mask) -> Field:
    """Signed distance in elements from the outline of a mask, positive inside."""
    if not plane.any():
        return np.full(plane.shape, ABSENT, np.float32)
    depth = ndimage.distance_transform_edt(plane) - ndimage.distance_transform_edt(~plane)
    return np.clip(depth, ABSENT, -ABSENT).astype(np.float32)


def _box_in(told: Told, cube: Cube) -> tuple[Mask | None, Mask | None]:
    if told.box is None:
        return None, None
    corners = [(np.array(c) - cube.low) / cube.scale for c in told.box]
    low, high = (np.clip(np.round(c), 0, cube.side).astype(int) for c in corners)
    flat = told.box[1][told.axis] - told.box[0][told.axis] == 1
    along = cube.planes(told.axis, told.box[0][told.axis])
    sides = [slice(int(a), max(int(b), int(a) + 1)) for a, b in zip(low, high, strict=True)]
    box, boxed = (np.zeros((cube.side,) * 3, bool) for _ in range(2))
    if flat:
        sides[told.axis] = along
        np.moveaxis(boxed, told.axis, 0)[along] = True
    else:
        boxed[:] = True
    box[tuple(sides)] = True
    return box, boxed


def _seeds_in(voxels: NDArray[np.integer] | None, cube: Cube) -> Mask | None:
    if voxels is None or not len(voxels):
        return None
    at = np.floor((voxels + 0.5 - cube.low) / cube.scale).astype(int)
    seeds = np.zeros((cube.side,) * 3, bool)
    seeds[tuple(at[((at >= 0) & (at < cube.side)).all(1)].T)] = True
    return seeds


def cut_off(found: CoarseAnswer, shape: Sequence[int]) -> bool:
    """True if the target reaches a side of the view behind which the volume goes on."""
    mask, cube = found.logits > 0, found.cube
    high = cube.low + cube.scale * cube.side
    for axis in range(3):
        for end, beyond in ((0, cube.low[axis] > 1), (-1, high[axis] < shape[axis] - 1)):
            if beyond and np.take(mask, end, axis).mean() > BORDER_SHARE:
                return True
    return False


def _middle(found: CoarseAnswer) -> tuple[float, float, float]:
    """(3,) voxels, the middle of what was found."""
    cells = np.argwhere(found.logits > 0)
    middle = (cells.min(0) + cells.max(0) + 1) / 2
    i, j, k = (found.cube.low + middle * found.cube.scale).tolist()
    return i, j, k


def save_coarse(network: CoarseNetwork, path: Path, about: Mapping[str, str]) -> None:
    """Write one safetensors file in half precision that carries its own configuration."""
    FILE.save(network, network.config(), path, about)


def load_coarse(path: Path | None = None) -> CoarseView:
    """Read a file of `save_coarse`; the one that ships if None, once a process.

    Raises:
        WeightsError: If the file is missing, corrupt or holds something else.
    """
    return shipped_or(path, NAME, _read)


def _read(path: Path) -> CoarseView:
    network = FILE.load(path, CoarseNetwork)
    if network.inputs != CHANNELS:
        raise WeightsError(f"{path} takes {network.inputs} channels: this version gives {CHANNELS}")
    return CoarseView(network, sha256_file(path))
