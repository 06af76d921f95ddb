"""Arrays that know where they are: volume and segmentation, grey levels, axes and planes."""

from promptseg.volume.volume import (
    FRAMES,
    MODALITIES,
    CoordinateFrame,
    Segmentation,
    Volume,
    anatomical_axes,
    bounding_slices,
    digest,
    pasted,
    read,
    read_labels,
    shown_volume,
    spacing_of,
    with_modality,
    write,
)

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
