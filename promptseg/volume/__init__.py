"""Arrays that know where they are: volume and segmentation, grey levels, axes and planes."""

from promptseg.volume.files import read, read_labels, with_modality, write
from promptseg.volume.grid import (
    FRAMES,
    CoordinateFrame,
    anatomical_axes,
    bounding_slices,
    digest,
    pasted,
    shown_volume,
    spacing_of,
)
from promptseg.volume.volume import MODALITIES, Segmentation, Volume

__all__ = [
    "FRAMES",
    "MODALITIES",
    "CoordinateFrame",
    "Segmentation",
    "Volume",
    "anatomical_axes",
    "bounding_slices",
    "digest",
    "pasted",
    "read",
    "read_labels",
    "shown_volume",
    "spacing_of",
    "with_modality",
    "write",
]
