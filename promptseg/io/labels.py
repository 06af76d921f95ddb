"""Label files of any format on the grid of the image they belong to."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np

from promptseg.errors import VolumeError
from promptseg.io.formats import format_of
from promptseg.io.image import DEFAULT_MAX_BYTES, Image

_NEAR = 0.1
"""Part of a voxel by which the grids of an image and its labels may differ; files round."""


def labels_on(
    path: str | os.PathLike[str], grid: Image, max_bytes: int = DEFAULT_MAX_BYTES
) -> Image:
    """Labels on the grid of an image.

    Args:
        path: Label file.
        grid: The image.
        max_bytes: Most memory.

    Raises:
        FormatError: It cannot be read, or belongs to another image.
        VolumeError: Its voxels are not those of the image, or no whole numbers.
    """
    path = Path(path)
    module = import_module(format_of(path).module)
    if hasattr(module, "read_on"):
        found: Image = module.read_on(path, grid, max_bytes)
        return found
    image: Image = module.read(path, max_bytes)
    data = _whole(path, image.data)
    turned = replace(image, data=data, layers=dict(image.layers))
    return _in_order(path, turned, grid)


def _whole(path: Path, data: np.ndarray) -> np.ndarray:
    if data.dtype.kind in "bui" and (data.dtype.kind != "i" or data.min() >= 0):
        return data
    bad = data[~((data >= 0) & (data == np.floor(data)))]
    if bad.size:
        raise VolumeError(
            f"{path}: {bad.size} label voxels such as {bad.flat[0]:g} are not whole numbers >= 0"
        )
    return data.astype(np.uint16 if data.max() < 2**16 else np.int64)


def _in_order(path: Path, image: Image, grid: Image) -> Image:
    """Labels with their axes in the order and direction of the grid's."""
    to_grid = np.linalg.inv(grid.affine) @ image.affine
    steps = np.rint(to_grid[:3, :3])
    if not np.all(np.abs(steps).sum(axis=0) == 1) or not np.all(np.abs(steps).sum(axis=1) == 1):
        raise VolumeError(f"{path}: the labels lie elsewhere than the image: their affines differ")
    axes = np.abs(steps).argmax(axis=1)
    signs = steps[np.arange(3), axes]
    shape = tuple(image.data.shape[axis] for axis in axes)
    if shape != grid.data.shape and image.provenance is None:
        raise VolumeError(f"{path}: the labels have shape {shape}, the image {grid.data.shape}")
    start = _start(path, image, to_grid, steps)
    flips = tuple(slice(None, None, -1 if sign < 0 else 1) for sign in signs)

    def order(data: np.ndarray) -> np.ndarray:
        return _placed(data.transpose(axes)[flips], start, grid.data.shape)

    layers = {target: order(mask) for target, mask in image.layers.items()}
    return replace(image, data=order(image.data), affine=grid.affine, layers=layers)


def _start(path: Path, image: Image, to_grid: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(3,) voxel of the grid at which the labels, once turned, begin."""
    ends = np.array(image.data.shape) - 1
    corners = np.array(list(product(*((0, end) for end in ends))))
    placed = corners @ to_grid[:3, :3].T + to_grid[:3, 3]
    turned = corners @ steps.T
    start = np.rint((placed - turned).mean(axis=0))
    off = float(np.abs(placed - turned - start).max())
    if off > _NEAR:
        raise VolumeError(
            f"{path}: the labels lie up to {off:.2g} voxels beside the image: their affines differ"
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
