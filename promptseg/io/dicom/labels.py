"""Labels out of DICOM: DICOM-SEG and RTSTRUCT, alone or on the grid of an image."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import FileDataset

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.entries import Entry, entries_of
from promptseg.io.dicom.headers import read_header, read_whole, text
from promptseg.io.dicom.rtstruct_reading import is_structure_set, labels_on
from promptseg.io.dicom.seg_on_image import segments_on
from promptseg.io.dicom.seg_reading import is_segmentation, read_segments, segments_alone
from promptseg.io.image import DEFAULT_MAX_BYTES, Image


def label_entry(path: Path, max_bytes: int) -> Entry | None:
    """The one label object of a file, folder or zip file; None where it holds images alone.

    Raises:
        FormatError: It holds several.
    """
    found = [entry for entry in entries_of(path, max_bytes) if _is_label(entry)]
    if len(found) > 1:
        names = ", ".join(entry.name for entry in found[:5])
        raise FormatError(f"{path}: holds {len(found)} label objects ({names}): give one of them")
    return found[0] if found else None


def read_alone(entry: Entry, max_bytes: int) -> Image:
    """Labels of a DICOM-SEG on the grid of its own frames.

    Raises:
        FormatError: It is an RTSTRUCT, whose contours need an image, or damaged.
        VolumeError: Its frames lie on no grid.
    """
    dataset = _opened(entry)
    if is_structure_set(dataset):
        raise FormatError(
            f"{entry.name}: an RTSTRUCT holds contours, which need the image they were drawn on: "
            "give it with the image (promptseg.read_labels, or as a label in evaluate)"
        )
    return segments_alone(read_segments(entry, dataset), max_bytes)


def read_on(path: Path, grid: Image, max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Labels of a DICOM-SEG or RTSTRUCT on the grid of an image.

    Args:
        path: File, or folder or zip file that holds one such object.
        grid: The image.
        max_bytes: Most that a zip file may unpack to.

    Raises:
        FormatError: There is none, or it belongs to another image.
        VolumeError: It does not lie on the image.
    """
    entry = label_entry(path, max_bytes)
    if entry is None:
        raise FormatError(f"{path}: holds no DICOM-SEG and no RTSTRUCT")
    dataset = _opened(entry)
    try:
        if is_structure_set(dataset):
            return labels_on(dataset, grid, entry.name)
        return segments_on(read_segments(entry, dataset), grid)
    except (FormatError, VolumeError) as error:
        raise type(error)(f"{path}: {error}") from error


def provenance_texts(path: Path) -> list[str]:
    """Texts in which promptseg says who made an object."""
    entry = label_entry(path, DEFAULT_MAX_BYTES)
    if entry is None:
        return []
    dataset = _opened(entry)
    texts = [text(dataset, "StructureSetDescription")]
    for segment in dataset.get("SegmentSequence") or ():
        for item in segment.get("SegmentationAlgorithmIdentificationSequence") or ():
            texts.append(text(item, "AlgorithmParameters"))
    return texts


def _opened(entry: Entry) -> FileDataset:
    return read_whole(entry)


def _is_label(entry: Entry) -> bool:
    header = read_header(entry)
    return header is not None and (is_segmentation(header) or is_structure_set(header))
