"""Label files of any format on the grid of the image they belong to."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from promptseg.errors import VolumeError
from promptseg.io.formats import format_of, module_of
from promptseg.io.image import DEFAULT_MAX_BYTES, Image

_NEAR = 0.1
"""Part of a voxel by which the grids of an image and its labels may differ; files round."""


def labels_on(
    path: str | os.PathLike[str],
    grid: Image,
    max_bytes: int = DEFAULT_MAX_BYTES,
    trusted: bool = False,
) -> Image:
    """Labels on the grid of an image.

    Args:
        path: Label file.
        grid: The image.
        max_bytes: Most memory.
        trusted: True to match voxels by their place in the arrays, whatever the affines say.

    Raises:
        FormatError: It cannot be read, or belongs to another image.
        VolumeError: Its voxels are not those of the image, or no whole numbers.
    """
    path = Path(path)
    module = module_of(format_of(path))
    if hasattr(module, "read_on"):
        found: Image = module.read_on(path, grid, max_bytes)
        return found
    reader = getattr(module, "read_labels", module.read)
    return on_grid(path, reader(path, max_bytes), grid, trusted)


def on_grid(path: str | os.PathLike[str], image: Image, grid: Image, trusted: bool) -> Image:
    """Labels as whole numbers on a grid; below 0 where a voxel is to be ignored.

    Raises:
        VolumeError: They are no whole numbers, or lie elsewhere.
    """
    data = whole_labels(image.data, str(path))
    notes = () if image.provenance is not None else _notes_on(image.data, data)
    whole = replace(image, data=data, layers=dict(image.layers), notes=(*image.notes, *notes))
    if not trusted:
        return _in_order(path, whole, grid)
    if data.shape != grid.data.shape:
        raise VolumeError(
            f"{path}: the labels have shape {data.shape}, the image {grid.data.shape}: voxels can "
            "be trusted only where both agree"
        )
    return replace(whole, affine=grid.affine)


def whole_labels(data: np.ndarray, name: str) -> np.ndarray:
    """Labels as whole numbers, rounded where a scale in the header left a trace.

    What is not finite is 0; what is below 0 becomes -1: to be ignored.

    Args:
        data: Values as the file gives them.
        name: For the error.

    Raises:
        VolumeError: A value is farther from a whole number than rounding explains.
    """
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind == "f":
        data = np.where(np.isfinite(data), data, 0)
        near = np.rint(data)
        # A slope kept in single precision moves a label of 65 by a thousandth.
        bad = data[np.abs(data - near) > 1e-3 * np.maximum(1, np.abs(near) / 65)]
        if bad.size:
            raise VolumeError(
                f"{name}: {bad.size} label voxels such as {bad.flat[0]:g} are no whole numbers: "
                "resample labels with nearest neighbours"
            )
        data = near.astype(np.int64)
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    if low < 0:
        return np.maximum(data, -1).astype(np.int32)
    if data.dtype.itemsize <= 2:
        return data
    return data.astype(np.uint16 if high < 2**16 else data.dtype, copy=False)


def _notes_on(before: np.ndarray, after: np.ndarray) -> list[str]:
    """What was done to make labels of values."""
    found = []
    if before.dtype.kind == "f" and np.any(before != after):
        found.append("labels are no whole numbers: rounded")
    ignored = int(np.count_nonzero(after < 0))
    if ignored:
        found.append(f"{ignored} label voxels are below 0: ignored")
    return found


def _in_order(path: str | os.PathLike[str], image: Image, grid: Image) -> Image:
    """Labels with their axes in the order and direction of the grid's."""
    to_grid = np.linalg.inv(grid.affine) @ image.affine
    steps = np.rint(to_grid[:3, :3])
    if not np.all(np.abs(steps).sum(axis=0) == 1) or not np.all(np.abs(steps).sum(axis=1) == 1):
        raise VolumeError(f"{path}: {_elsewhere(image, grid)}")
    axes = np.abs(steps).argmax(axis=1)
    signs = steps[np.arange(3), axes]
    shape = tuple(image.data.shape[axis] for axis in axes)
    if shape != grid.data.shape and image.provenance is None:
        raise VolumeError(f"{path}: the labels have shape {shape}, the image {grid.data.shape}: "
                          "resample them onto the image")  # fmt: skip
    start = _start(path, image, to_grid, steps, grid.affine[:3, :3])
    flips = tuple(slice(None, None, -1 if sign < 0 else 1) for sign in signs)

    def order(data: np.ndarray) -> np.ndarray:
        return _placed(data.transpose(axes)[flips], start, grid.data.shape)

    layers = {target: order(mask) for target, mask in image.layers.items()}
    turned = not np.array_equal(steps, np.eye(3))
    told = ("the labels are stored in another order than the image: turned by the affines",)
    notes = image.notes + (told if turned else ())
    data = order(image.data)
    return replace(image, data=data, affine=grid.affine, layers=layers, notes=notes)


def _elsewhere(image: Image, grid: Image) -> str:
    """How far labels lie from the image at most, and what to do."""
    ends = [np.array(one.data.shape) - 1 for one in (image, grid)]
    places = [
        np.array(list(product(*((0, end) for end in side)))) @ one.affine[:3, :3].T
        + one.affine[:3, 3]
        for side, one in zip(ends, (image, grid), strict=True)
    ]
    apart = float(np.linalg.norm(places[0] - places[1], axis=1).max())
    return (
        f"the labels lie up to {apart:.1f} mm beside the image, their affines differ: resample "
        "them onto the image, or, if the voxels match all the same, trust them (--trust-voxels)"
    )


def _start(
    path: str | os.PathLike[str],
    image: Image,
    to_grid: np.ndarray,
    steps: np.ndarray,
    spans: np.ndarray,
) -> np.ndarray:
    """(3,) voxel of the grid at which the labels, once turned, begin."""
    ends = np.array(image.data.shape) - 1
    corners = np.array(list(product(*((0, end) for end in ends))))
    placed = corners @ to_grid[:3, :3].T + to_grid[:3, 3]
    turned = corners @ steps.T
    start = np.rint((placed - turned).mean(axis=0))
    off = float(np.abs(placed - turned - start).max())
    if off > _NEAR:
        apart = float(np.linalg.norm((placed - turned - start) @ spans.T, axis=1).max())
        raise VolumeError(
            f"{path}: the labels lie up to {apart:.1f} mm ({off:.2g} voxels) beside the "
            "image, their affines differ: resample them onto the image, or, if the voxels match "
            "all the same, trust them (--trust-voxels)"
        )
    return (start + turned.min(axis=0)).astype(int)


def _placed(data: np.ndarray, start: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Labels cut out of, or reaching beyond, an image, on its grid."""
    if np.all(start == 0) and data.shape == shape:
        return np.ascontiguousarray(data)
    found = np.zeros(shape, data.dtype)
    low = np.clip(start, 0, shape)
    high = np.clip(start + data.shape, low, shape)
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    found[here] = data[there]
    return found
