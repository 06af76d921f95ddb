"""DICOM label map segmentation out (Supplement 243): one value a voxel, no overlap."""

from __future__ import annotations

from pathlib import Path

from promptseg.io.dicom.seg_writing import check, write_as
from promptseg.io.image import Image

__all__ = ["check", "write"]


def write(image: Image, path: Path) -> None:
    """Write labels as a label map segmentation object.

    Raises:
        FormatError: The labels are on no DICOM series, all empty, or the file cannot be written.
    """
    write_as(image, path, "LABELMAP")
