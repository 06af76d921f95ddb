"""What about a mask deserves a second look, slice by slice, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from promptseg.errors import VolumeError
from promptseg.report.texts import reason
from promptseg.volume import Segmentation, Volume, bounding_slices
from promptseg.volume.slicing import in_plane

OUTLIER = 0.35
"""Share by which a slice's area may differ from what its neighbours say: 1 of 2,014 slices of
expert masks (left atria, cine hearts, hippocampi, abdominal organs in MR) differs by more."""
DISJOINT = 0.1
"""Dice of neighbouring slices below which the outline jumps."""
ABRUPT, THIN_MM = 0.6, 4.0
"""Share of the largest area on the last slice of a target; said of thin slices only, since on thick
ones organs do end so."""
SMALL_PART = 0.1
"""Share of the target below which a component apart is taken for a stray one."""
LOW_QUALITY = 0.6
"""Predicted quality (intersection over union) below which a slice is shown."""
DOUBTFUL = 0.15
"""Share of a slice's area that is expected to be wrong, by the calibrated uncertainty."""
MOST_STRAYS = 5
"""Of more stray components only the number is said."""
AROUND = 5
"""Pixels around an outline whose doubt is counted to it."""
LEAST_PIXELS = 12
"""Slices of a target that are smaller than this are not judged by their area."""


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Args:
        target: Which.
        kind: Key of `promptseg.report.texts.REASONS`.
        slice: Index along the checked axis; None for the target as a whole.
        values: Numbers for the reason in words.
    """

    target: int
    kind: str
    slice: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with the reason in English."""
        told = {"target": self.target, "kind": self.kind, "slice": self.slice}
        return {**told, "values": dict(self.values), "reason": self.words("en")}

    def words(self, language: str) -> str:
        """The reason in words."""
        return reason(self.kind, self.values, language)


@dataclass(frozen=True)
class Check:
    """What was found out about one target.

    Args:
        areas: (slice, mm2) of every slice between the first and last that hold it.
        components: Millilitres, largest first.
        holes_ml: Millilitres of the cavities that it encloses.
        holes: How many.
        borders: Faces of the image that it touches: `i-`, `i+`, `j-` and so on.
        findings: What deserves a look.
    """

    areas: list[tuple[int, float]]
    components: list[float]
    holes_ml: float
    holes: int
    borders: list[str]
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "area_curve_mm2": [[index, area] for index, area in self.areas],
            "components_ml": self.components,
            "holes": self.holes,
            "holes_ml": self.holes_ml,
            "touches_border": self.borders,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def check(result: Segmentation, volume: Volume, axis: int) -> dict[int, Check]:
    """Check every target.

    Args:
        result: Labels, with `report["slice_quality"]` and `uncertainty` where there are any.
        volume: The image on the same grid.
        axis: Along which slices are compared.

    Raises:
        VolumeError: The grids differ.
    """
    if result.data.shape != volume.shape:
        raise VolumeError(f"labels have shape {result.data.shape}, the image {volume.shape}")
    quality = result.report.get("slice_quality", {})
    return {
        target: _one(result, volume, target, axis, quality.get(target, quality.get(str(target))))
        for target in result.targets
    }


def _one(
    result: Segmentation,
    volume: Volume,
    target: int,
    axis: int,
    quality: Mapping[Any, float] | None,
) -> Check:
    mask = result.mask(target)
    where = bounding_slices(mask)
    if where is None:
        return Check([], [], 0.0, 0, [], [Finding(target, "empty")])
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000.0
    stack = np.moveaxis(mask[where], axis, 0)
    first = where[axis].start
    areas = stack.sum((1, 2))
    pixel = voxel_ml * 1000.0 / float(volume.spacing[axis])
    parts, strays = _components(mask[where], target, axis, first, voxel_ml)
    holes, holed = _holes(mask[where], target, axis, first, voxel_ml)
    borders, cut = _borders(mask, target, axis)
    findings = [
        *_jumps(stack, areas, target, first),
        *_ends(areas, target, first, volume, axis),
        *strays,
        *holed,
        *cut,
        *_low_quality(areas, target, first, quality),
        *_doubtful(result, mask, where, target, axis, areas),
    ]
    curve = [(first + n, float(area * pixel)) for n, area in enumerate(areas)]
    return Check(curve, parts, sum(holes), len(holes), borders, findings)


def _jumps(stack: np.ndarray, areas: np.ndarray, target: int, first: int) -> list[Finding]:
    """Slices whose area or place does not go with that of their neighbours."""
    found = [Finding(target, "gap", first + int(empty)) for empty in np.flatnonzero(areas == 0)]
    for n in range(1, len(areas) - 1):
        before, here, after = (int(areas[m]) for m in (n - 1, n, n + 1))
        expected = (before + after) / 2
        if min(before, here, after) < LEAST_PIXELS:
            continue
        share = here / expected - 1
        alone = (here > max(before, after)) or (here < min(before, after))
        if alone and abs(share) > OUTLIER:
            kind = "spike" if share > 0 else "dip"
            found.append(Finding(target, kind, first + n, {"percent": round(abs(share) * 100)}))
    for n, (before, here) in enumerate(pairwise(stack), start=1):
        if min(areas[n - 1], areas[n]) < LEAST_PIXELS:
            continue
        shared = 2 * int((before & here).sum()) / int(areas[n - 1] + areas[n])
        if shared < DISJOINT:
            percent = round(100 * shared)
            found.append(Finding(target, "jump", first + n, {"percent": percent}))
    return found


def _ends(areas: np.ndarray, target: int, first: int, volume: Volume, axis: int) -> list[Finding]:
    """A first or last slice on which much of the target ends at once."""
    if volume.spacing[axis] > THIN_MM or len(areas) < 2:
        return []
    found = []
    last = first + len(areas) - 1
    for at, area, edge in ((first, areas[0], 0), (last, areas[-1], volume.shape[axis] - 1)):
        share = float(area / areas.max())
        if at != edge and share > ABRUPT and area >= LEAST_PIXELS:
            found.append(Finding(target, "abrupt", int(at), {"percent": round(100 * share)}))
    return found


def _components(
    mask: np.ndarray, target: int, axis: int, first: int, voxel_ml: float
) -> tuple[list[float], list[Finding]]:
    """Millilitres of the components, and the small ones apart from the largest."""
    parts, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * voxel_ml
    order = np.argsort(-sizes, kind="stable")
    found = []
    for part in order[1:]:
        if sizes[part] < SMALL_PART * sizes.sum():
            index = int(np.argmax((parts == part + 1).sum(in_plane(axis)))) + first
            found.append(Finding(target, "stray", index, {"ml": float(sizes[part])}))
    # A cloud of specks is said once, with its largest ones shown.
    if len(found) > MOST_STRAYS:
        rest = len(found) - MOST_STRAYS
        found = [*found[:MOST_STRAYS], Finding(target, "more_strays", None, {"count": rest})]
    return [float(size) for size in sizes[order]], found


def _holes(
    mask: np.ndarray, target: int, axis: int, first: int, voxel_ml: float
) -> tuple[list[float], list[Finding]]:
    """Millilitres of enclosed cavities, and the slice that shows the most of them."""
    holes = ndimage.binary_fill_holes(mask) & ~mask
    parts, count = cc3d.connected_components(holes, connectivity=6, return_N=True)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * voxel_ml
    if not count:
        return [], []
    index = int(np.argmax(holes.sum(in_plane(axis)))) + first
    values = {"count": int(count), "ml": float(sizes.sum())}
    return [float(size) for size in sizes], [Finding(target, "holes", index, values)]


def _borders(mask: np.ndarray, target: int, axis: int) -> tuple[list[str], list[Finding]]:
    """Faces of the image that a mask touches, and the slice that shows the most of it."""
    faces, found = [], []
    for side in range(3):
        for at, sign in ((0, "-"), (mask.shape[side] - 1, "+")):
            face = np.moveaxis(mask, side, 0)[at]
            if not face.any():
                continue
            faces.append(f"{'ijk'[side]}{sign}")
            index = at
            if side != axis:
                along = axis if axis < side else axis - 1
                index = int(np.argmax(face.sum(1 - along)))
            found.append(Finding(target, "border", index, {"face": faces[-1]}))
    return faces, found


def _low_quality(
    areas: np.ndarray, target: int, first: int, quality: Mapping[Any, float] | None
) -> list[Finding]:
    if not quality:
        return []
    found = []
    for index, value in sorted((int(index), float(value)) for index, value in quality.items()):
        inside = 0 <= index - first < len(areas)
        if inside and areas[index - first] >= LEAST_PIXELS and value < LOW_QUALITY:
            found.append(Finding(target, "low_quality", index, {"quality": round(value, 2)}))
    return found


def _doubtful(
    result: Segmentation,
    mask: np.ndarray,
    where: tuple[slice, ...],
    target: int,
    axis: int,
    areas: np.ndarray,
) -> list[Finding]:
    """Slices of which much is expected to be wrong: uncertainty is twice that probability."""
    if result.uncertainty is None:
        return []
    stack = np.moveaxis(mask[where], axis, 0)
    others = np.moveaxis((result.data[where] != 0) & ~mask[where], axis, 0)
    flat = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), AROUND)
    near = ndimage.binary_dilation(stack, flat[None]) & ~others
    doubt = np.moveaxis(result.uncertainty[where], axis, 0)
    wrong = (doubt * near).sum((1, 2)) / 2
    found = []
    for n, area in enumerate(areas):
        share = float(wrong[n] / area) if area >= LEAST_PIXELS else 0.0
        if share > DOUBTFUL:
            values = {"percent": min(100, round(100 * share))}
            found.append(Finding(target, "doubtful", where[axis].start + n, values))
    return found
