"""Connected components: the largest, the n largest, those above a volume."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np

from promptseg.refine.postprocessing.steps import Grid, Made

_NEIGHBOURS: dict[str, Literal[6, 18, 26]] = {"6": 6, "18": 18, "26": 26}


def largest(masks: list[np.ndarray], grid: Grid, connectivity: str = "26") -> Made:
    """The largest connected component.

    Args:
        masks: One (I, J, K) bool mask.
        grid: Where it is.
        connectivity: `6`, `18` or `26` neighbours.
    """
    return keep(masks, grid, n=1, connectivity=connectivity)


def keep(
    masks: list[np.ndarray],
    grid: Grid,
    n: int | None = None,
    min_ml: float = 0.0,
    connectivity: str = "26",
) -> Made:
    """The n largest connected components, and of these those of at least `min_ml`.

    Args:
        masks: One (I, J, K) bool mask.
        grid: Where it is.
        n: How many; all if None.
        min_ml: Smallest volume in millilitres.
        connectivity: `6`, `18` or `26` neighbours.
    """
    parts = cc3d.connected_components(masks[0], connectivity=_NEIGHBOURS[connectivity])
    sizes = np.bincount(parts.ravel())[1:]
    # Of equal ones the first in the array stays, so that the same mask gives the same answer.
    order = np.argsort(-sizes, kind="stable")[:n]
    kept = [part + 1 for part in order if sizes[part] * grid.voxel_ml >= min_ml * (1 - 1e-9)]
    dropped = len(sizes) - len(kept)
    lost = int(sizes.sum() - sizes[np.array(kept, int) - 1].sum()) * grid.voxel_ml
    remark = f"{dropped} of {len(sizes)} components dropped, {lost:.3g} ml"
    return np.isin(parts, kept), [remark] if dropped else []
