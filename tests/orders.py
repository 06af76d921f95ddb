"""The 48 ways in which a file can store the same volume, by nibabel and not by this project."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np

from promptseg.volume import Volume

ORDERS = [
    "".join(letters) for axes in permutations(("RL", "AP", "SI")) for letters in product(*axes)
]


def _turn(affine: np.ndarray, codes: str) -> np.ndarray:
    start = nib.orientations.io_orientation(affine)
    return nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(tuple(codes)))


def stored(volume: Volume, codes: str) -> Volume:
    """The same volume with its voxels stored along other axes."""
    turn = _turn(volume.affine, codes)
    data = np.ascontiguousarray(nib.orientations.apply_orientation(volume.data, turn))
    step = nib.orientations.inv_ornt_aff(turn, volume.shape)
    return replace(volume, data=data, affine=volume.affine @ step)


def restored(data: np.ndarray, volume: Volume, original: Volume) -> np.ndarray:
    """(I, J, K) values on a volume of `stored`, on the voxels that it was made from."""
    codes = "".join(nib.aff2axcodes(original.affine))
    return nib.orientations.apply_orientation(data, _turn(volume.affine, codes))
