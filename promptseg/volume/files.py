"""Volumes and labels read from files, folders and a PACS, and written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from promptseg.errors import VolumeError
from promptseg.io import DEFAULT_MAX_BYTES, Image, labels_on, read_image, write_image
from promptseg.io.pacs.address import is_address
from promptseg.volume.grey_levels import Modality
from promptseg.volume.volume import Segmentation, Volume


def read(
    path: str | os.PathLike[str],
    max_bytes: int = DEFAULT_MAX_BYTES,
    series: int | str | None = None,
    modality: Modality | None = None,
) -> Volume:
    """Read a 3D image with its affine; nothing is reoriented.

    Args:
        path: File, or DICOM folder or zip file, of a known format, or a series in a PACS,
            `dicomweb://host/dicom-web/studies/UID/series/UID` or `dimse://AETITLE@host:port/...`.
        max_bytes: Refuse, before allocating, an image that needs more memory than this.
        series: Which series of several in a DICOM folder: its number in the list that the error
            gives, or its SeriesInstanceUID.
        modality: `CT`, `MR` or `other`, over what the file and its grey values say.

    Raises:
        FormatError: it is missing, damaged or of an unknown format.
        VolumeError: it holds no usable 3D image.

    Example:
        >>> import promptseg as ps
        >>> ps.read("ct.nii.gz")  # doctest: +SKIP
        Volume(512 x 512 x 88 voxels of 0.7 x 0.7 x 1.25 mm, int16, CT)
    """
    source: Path | str
    if is_address(path):
        from promptseg.io.pacs.exchange import read as get

        image, source = get(str(path), max_bytes, series)
    else:
        source = path = Path(path)
        image = read_image(path, max_bytes, series=series)
    if modality is None and image.modality is not None:
        known: dict[str, Modality] = {"CT": "CT", "MR": "MR"}
        modality = known.get(image.modality, "other")
    given = {"header": image.header, "source": source, "notes": image.notes}
    try:
        volume = Volume(image.data, image.affine, modality, **given)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    return volume if modality is not None else with_modality(volume)


def with_modality(volume: Volume) -> Volume:
    """A volume of unknown modality with the one that its grey values tell, if they do."""
    levels = volume.levels
    if levels.belief == "unsure":
        return volume
    told = replace(volume, modality=levels.modality, guessed=True)
    told.__dict__["levels"] = levels
    return told


def read_labels(
    path: str | os.PathLike[str], volume: Volume, max_bytes: int = DEFAULT_MAX_BYTES
) -> Segmentation:
    """Read labels of any format onto the grid of the volume they belong to.

    Contours of an RTSTRUCT are filled on its slices; a DICOM-SEG and labels whose file stores the
    same voxels in another order are turned into its order.

    Args:
        path: Label file; for DICOM-SEG and RTSTRUCT also a folder or zip file that holds one.
        volume: The image.
        max_bytes: As in `read`.

    Raises:
        FormatError: it is missing, damaged, or belongs to another image.
        VolumeError: its voxels are not those of the volume, or no whole numbers.
    """
    grid = Image(volume.data, volume.affine, header=volume.header)
    found = labels_on(path, grid, max_bytes)
    return Segmentation.from_volume(
        volume,
        np.maximum(found.data, 0),
        labels=found.names,
        layers=found.layers,
        report={"notes": list(found.notes)} if found.notes else {},
    )


def write(
    item: Segmentation | Volume, path: str | os.PathLike[str], format: str | None = None
) -> None:
    """Write labels or an image on its own grid; all of the file or nothing.

    Args:
        item: Segmentation or volume.
        path: Output file.
        format: Name in `promptseg.io.FORMATS`; None goes by the suffix.

    Raises:
        FormatError: the format is unknown or the file cannot be written.

    Example:
        >>> import numpy as np, tempfile
        >>> import promptseg as ps
        >>> labels = ps.Segmentation(np.ones((8, 8, 4), np.uint8), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ps.write(labels, f"{folder}/mask.nii.gz")
        ...     ps.read(f"{folder}/mask.nii.gz").shape
        (8, 8, 4)
    """
    if isinstance(item, Segmentation):
        item.save(path, format)
    else:
        write_image(Image(item.data, item.affine, item.modality, item.header), path, format)
