"""The patient's body in an image, and cropping to it."""

from __future__ import annotations

import cc3d
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from promptseg.errors import PromptError
from promptseg.refine.postprocessing.margins import margin
from promptseg.refine.postprocessing.shape import filled_slices
from promptseg.refine.postprocessing.steps import Grid, Made
from promptseg.volume import Volume
from promptseg.volume.slicing import resolve_axis

SKIN_HU = -400.0
"""Halfway between air and fat, below every tissue but lung."""

_TABLE_MM = 5.0
"""Radius that is opened away: thicker than a table top's shell, thinner than an arm."""


def crop_to_body(
    masks: list[np.ndarray], grid: Grid, mm: float = 0.0, threshold: float | None = None
) -> Made:
    """The part of a mask inside the body.

    Args:
        masks: One (I, J, K) bool mask.
        grid: With the image.
        mm: Distance to keep from the skin.
        threshold: As in `body_mask`.
    """
    body = body_mask(grid.image("crop_to_body"), threshold)
    if mm > 0:
        body = margin([body], grid, mm=-mm)[0]
    lost = float((masks[0] & ~body).sum()) * grid.voxel_ml
    return masks[0] & body, [f"{lost:.3g} ml outside the body dropped"] if lost else []


def body_mask(volume: Volume, threshold: float | None = None) -> np.ndarray:
    """(I, J, K) bool: the largest body brighter than air, with everything that it encloses.

    Args:
        volume: CT or MR.
        threshold: Grey value above which is body; None takes -400 HU for CT, Otsu's threshold of
            the positive values halved for others.

    Raises:
        PromptError: Nothing is brighter.
    """
    level = _level(volume) if threshold is None else threshold
    bright = volume.data > level
    axial = resolve_axis("axial", volume.affine)
    opened = _opened(bright, axial, volume.spacing)
    parts = cc3d.connected_components(opened, connectivity=6)
    sizes = np.bincount(parts.ravel())
    if len(sizes) < 2:
        raise PromptError(f"no body found above {level:g}: give threshold=VALUE")
    sizes[0] = 0
    return filled_slices(parts == sizes.argmax(), axial)


def _level(volume: Volume) -> float:
    levels = volume.levels
    if levels.modality == "CT":
        return SKIN_HU if levels.scale is None else levels.scale.grey(SKIN_HU)
    image = volume.data[(volume.data >= levels.low) & (volume.data <= levels.high)]
    lowest = float(image.min())
    values = image[image > lowest]
    if not values.size or values.min() == values.max():
        return lowest
    # Otsu parts bright tissue from dark; half of it lies between dark tissue and air.
    return lowest + (float(threshold_otsu(values)) - lowest) / 2


def _opened(bright: np.ndarray, axial: int, spacing: np.ndarray) -> np.ndarray:
    """Without what is thinner than a table, slice by slice; distances in millimetres."""
    within = [float(spacing[axis]) for axis in range(3) if axis != axial]
    planes = []
    for plane in np.moveaxis(bright, axial, 0):
        # Outside the image the body goes on.
        padded = np.pad(plane, 1, mode="edge")
        core = ndimage.distance_transform_edt(padded, within) > _TABLE_MM
        grown = ndimage.distance_transform_edt(~core, within) <= _TABLE_MM if core.any() else core
        planes.append(plane & grown[1:-1, 1:-1])
    return np.moveaxis(np.stack(planes), 0, axial)
