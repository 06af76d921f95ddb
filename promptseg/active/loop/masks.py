"""Corrected masks from whatever tool they were made with, on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from promptseg.datasets.cohort import whole_labels
from promptseg.errors import FormatError
from promptseg.volume import Segmentation, Volume, read_labels


def accepted_labels(
    mask: Path | Segmentation, volume: Volume, name: str, known: Mapping[int, str]
) -> np.ndarray:
    """(I, J, K) labels on the image's grid, numbered as the project numbers them.

    A file whose structures have names, such as an RTSTRUCT or a DICOM-SEG, is taken by name: its
    numbers are whatever the tool that wrote it counted. Structures that the project does not know
    are left out. A single structure of another name is taken where the project has one label.

    Args:
        mask: File in any format that can be read, or labels in memory.
        volume: The image.
        name: Of the case.
        known: Name by label of the project.

    Raises:
        FormatError: It cannot be read, belongs to another image, or has no structure that is known.
        VolumeError: Its voxels are not the image's, or its values are no labels.
    """
    held = read_labels(mask, volume) if isinstance(mask, Path) else mask
    if held.data.shape != volume.shape:
        raise FormatError(f"the mask of {name} has {held.data.shape} voxels, not {volume.shape}")
    if not _named(held):
        return whole_labels(held.data, name)
    found = np.zeros(volume.shape, np.uint16)
    for label, target in _matched(held, name, known).items():
        found[held.mask(target)] = label
    return found if found.max(initial=0) > 255 else found.astype(np.uint8)


def _named(held: Segmentation) -> bool:
    """True if every structure in it has a name."""
    return bool(held.targets) and all(held.labels.get(target) for target in held.targets)


def _matched(held: Segmentation, name: str, known: Mapping[int, str]) -> dict[int, int]:
    """The file's number of every label of the project that it has."""
    places = {held.labels[target].strip().casefold(): target for target in held.targets}
    wanted = {label: places.get(words.strip().casefold()) for label, words in known.items()}
    matched = {label: target for label, target in wanted.items() if target is not None}
    if matched:
        return matched
    if len(held.targets) == len(known) == 1:
        return {next(iter(known)): held.targets[0]}
    raise FormatError(
        f"the mask of {name} has {', '.join(held.labels[t] for t in held.targets)}, the project "
        f"knows {', '.join(known.values())}: rename the structure"
    )
