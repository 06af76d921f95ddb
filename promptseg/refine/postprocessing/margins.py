"""Margins in millimetres, as from a gross tumour volume to a clinical target volume."""

from __future__ import annotations

from collections.abc import Mapping

import cc3d
import numpy as np
from scipy.signal import oaconvolve

from promptseg.errors import PromptError
from promptseg.refine.postprocessing.shape import around
from promptseg.refine.postprocessing.steps import Grid, Made
from promptseg.volume import bounding_slices, pasted

DIRECTIONS = ("right", "left", "anterior", "posterior", "superior", "inferior")
"""Along +x, -x, +y, -y, +z, -z of RAS+ millimetres."""

_TOLERANCE_MM = 1e-3
"""Affines of NIfTI are 32 bit: 5 steps of 1 mm may come to 5.0000002."""


def margin(
    masks: list[np.ndarray],
    grid: Grid,
    mm: float = 0.0,
    not_into: tuple[int, ...] = (),
    not_above: float | None = None,
    not_below: float | None = None,
    **directions: float,
) -> Made:
    """The mask and every voxel whose centre is within a distance of one of its centres.

    What lies behind a barrier is reached only on a way around it inside the margin.

    Args:
        masks: One (I, J, K) bool mask.
        grid: Where it is.
        mm: Distance in millimetres; a negative one shrinks the mask.
        not_into: Targets that are not entered.
        not_above: Grey value above which is not entered: bone, with 250 HU or so.
        not_below: Grey value below which is not entered: air and lung.
        directions: Other distances towards `right`, `left`, `anterior`, `posterior`, `superior`
            or `inferior` of the patient; in between they go over as an ellipsoid does.

    Raises:
        PromptError: Nothing was asked for, a target is not there, or growing is mixed with
            shrinking.
    """
    reach = {name: float(directions.get(name, mm)) for name in DIRECTIONS}
    grows, shrinks = any(r > 0 for r in reach.values()), any(r < 0 for r in reach.values())
    if grows == shrinks:
        what = "grows and shrinks" if grows else "is 0 in every direction"
        raise PromptError(f"the margin {what}: give mm=5 or mm=-2, or directions of one sign")
    if shrinks:
        inner = {_opposite(name): -r for name, r in reach.items()}
        return _eroded(masks[0], grid, inner), []
    mask = masks[0]
    grown = _dilated(mask, grid, reach)
    barrier = _barrier(grid, not_into, not_above, not_below)
    remarks = [*_too_thin(grid, reach), *_cut(grown, mask)]
    if barrier is None:
        return grown, remarks
    allowed = grown & (~barrier | mask)
    return _connected(allowed, mask), remarks


def ball(affine: np.ndarray, reach: Mapping[str, float]) -> np.ndarray:
    """Voxel offsets within some distances, as a bool array of odd sides around the centre.

    Args:
        affine: (4, 4) voxel to RAS+ millimetres; it may be sheared.
        reach: Millimetres by direction, 0 or more.
    """
    furthest = max(reach.values())
    inverse = np.linalg.inv(affine[:3, :3])
    sides = np.floor(furthest * np.linalg.norm(inverse, axis=1) + _TOLERANCE_MM).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in sides), indexing="ij"), -1)
    world = steps @ affine[:3, :3].T
    share = np.zeros(world.shape[:3])
    for axis in range(3):
        ahead, back = (reach[name] + _TOLERANCE_MM for name in DIRECTIONS[2 * axis : 2 * axis + 2])
        share += (world[..., axis] / np.where(world[..., axis] > 0, ahead, back)) ** 2
    return share <= 1


def _dilated(mask: np.ndarray, grid: Grid, reach: Mapping[str, float]) -> np.ndarray:
    structure = ball(grid.affine, reach)
    where = around(mask, [side // 2 for side in structure.shape])
    if where is None:
        return mask
    hits = oaconvolve(mask[where].astype(np.float32), structure.astype(np.float32), mode="same")
    return pasted(hits > 0.5, where, mask.shape)


def _eroded(mask: np.ndarray, grid: Grid, reach: Mapping[str, float]) -> np.ndarray:
    """Without what is within reach of the outside; the mask ends at the edge of the image."""
    where = bounding_slices(mask)
    if where is None:
        return mask
    outside = _dilated(~np.pad(mask[where], 1), grid, reach)
    return pasted(~outside[1:-1, 1:-1, 1:-1], where, mask.shape)


def _barrier(
    grid: Grid, not_into: tuple[int, ...], above: float | None, below: float | None
) -> np.ndarray | None:
    parts = []
    for target in not_into:
        if target not in grid.masks:
            raise PromptError(f"the barrier is target {target}, of which there is none")
        parts.append(grid.masks[target])
    if above is not None:
        parts.append(grid.image("not_above").data > above)
    if below is not None:
        parts.append(grid.image("not_below").data < below)
    return np.logical_or.reduce(parts) if parts else None


def _connected(allowed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Components of `allowed` that hold some of the mask; corners do not connect."""
    parts = cc3d.connected_components(allowed, connectivity=6)
    return np.isin(parts, np.setdiff1d(np.unique(parts[mask]), [0]))


def _too_thin(grid: Grid, reach: Mapping[str, float]) -> list[str]:
    """Axes whose voxels are larger than the margin, so that nothing is added along them."""
    structure = ball(grid.affine, reach)
    return [
        f"the margin of {max(reach.values()):g} mm adds nothing along {name}, where voxels are "
        f"{size:.3g} mm apart"
        for name, side, size in zip("ijk", structure.shape, grid.spacing, strict=True)
        if side == 1
    ]


def _cut(grown: np.ndarray, mask: np.ndarray) -> list[str]:
    """A remark where the margin reaches the edge of the image and the mask did not."""
    edges = [
        grown.take(at, axis).any() and not mask.take(at, axis).any()
        for axis in range(3)
        for at in (0, -1)
    ]
    return ["the margin reaches the edge of the image and may be cut there"] if any(edges) else []


def _opposite(name: str) -> str:
    return DIRECTIONS[DIRECTIONS.index(name) ^ 1]
