"""Series out of a PACS and results into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from pydicom.dataset import Dataset

from promptseg.errors import FormatError
from promptseg.io.formats import write_image
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.pacs.address import Address, parse_address
from promptseg.io.pacs.entries import Pacs, SeriesEntry

_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
Told = Callable[[int, int | None], None]


def connect(address: Address) -> Pacs:
    """Speak to a PACS.

    Raises:
        FormatError: The credentials cannot be used there.
    """
    name, kind = ("web", "WebPacs") if address.web else ("dimse", "DimsePacs")
    made: Pacs = getattr(import_module(f"promptseg.io.pacs.{name}"), kind)(address)
    return made


def read(
    text: str, max_bytes: int = DEFAULT_MAX_BYTES, series: int | str | None = None
) -> tuple[Image, str]:
    """Read one volume of a PACS; nothing is left on this machine.

    Args:
        text: Address of a series, or of a study of which `series` chooses one.
        max_bytes: Most memory for the image, and most that is fetched.
        series: SeriesNumber, SeriesInstanceUID, or as in `promptseg.io.dicom.read` for one series
            that holds several volumes.

    Returns:
        The volume, and the address of its series.

    Raises:
        FormatError: The PACS cannot be reached, or several series fit and none was chosen.
        VolumeError: The slices make no volume.
    """
    from promptseg.io import dicom

    address = parse_address(text)
    pacs = connect(address)
    if address.series is None:
        chosen = choose(pacs, address, series)
        address, series = address.of(chosen.study, chosen.series), None
    with tempfile.TemporaryDirectory(prefix="promptseg-pacs-") as folder:
        fetch_series(pacs, address, Path(folder), max_bytes)
        try:
            return dicom.read(folder, max_bytes, series), str(address)
        except FormatError as error:
            raise type(error)(str(error).replace(folder, str(address))) from error


def choose(pacs: Pacs, address: Address, series: int | str | None) -> SeriesEntry:
    """One image series of a study.

    Raises:
        FormatError: There is none, or there are several and none was chosen.
    """
    if address.study is None:
        raise FormatError(f"{address}: name the study: see `promptseg pacs list {address}`")
    found = [
        one
        for one in pacs.find({"StudyInstanceUID": address.study})
        if one.modality not in _NO_IMAGES
    ]
    if series is not None:
        found = [one for one in found if str(series) in (one.series, str(one.number))]
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = "image series" if series is None else f"series {series}"
        raise FormatError(f"{address}: the study has no {wanted}")
    listed = "; ".join(
        f"{one.number}: {one.modality} {one.description!r}, {one.instances} objects"
        for one in sorted(found, key=lambda one: (one.number or 0, one.series))
    )
    raise FormatError(f"{address}: several series, choose one by its number: {listed}")


def fetch_series(
    pacs: Pacs,
    address: Address,
    folder: Path,
    max_bytes: int = DEFAULT_MAX_BYTES,
    told: Told | None = None,
) -> int:
    """Write every object of a series into a folder, named by nothing private.

    Args:
        pacs: Of the address.
        address: Of a series.
        folder: Exists.
        max_bytes: Most that is fetched.
        told: Called with objects so far and in all.

    Returns:
        How many objects.

    Raises:
        FormatError: The series is not there, is too large, or did not arrive whole.
    """
    if address.study is None or address.series is None:
        raise FormatError(f"{address}: name a series: /studies/UID/series/UID")
    wanted = {"StudyInstanceUID": address.study, "SeriesInstanceUID": address.series}
    known = [one for one in pacs.find(wanted) if one.series == address.series]
    if not known:
        raise FormatError(f"{address}: there is no such series")
    promised = known[0].instances
    number = size = 0
    for number, dataset in enumerate(pacs.fetch(address.study, address.series), start=1):
        path = folder / f"{number:06d}.dcm"
        _save(dataset, path)
        size += path.stat().st_size
        if size > max_bytes:
            raise FormatError(f"{address}: more than {max_bytes} bytes: raise max_bytes")
        if told is not None:
            told(number, promised)
    if promised is not None and number < promised:
        raise FormatError(f"{address}: {number} of {promised} objects arrived: try again")
    return number


def store_files(pacs: Pacs, address: Address, files: Iterable[Path]) -> int:
    """Send DICOM files to a PACS.

    Returns:
        How many were stored.

    Raises:
        FormatError: The PACS refused any; names them and why.
    """
    sent = list(files)
    refused = pacs.store(sent)
    if refused:
        listed = "; ".join(f"{uid}: {why}" for uid, why in list(refused.items())[:5])
        raise FormatError(f"{address}: {len(refused)} of {len(sent)} objects refused: {listed}")
    return len(sent)


def write(image: Image, text: str, format: str | None = None) -> None:
    """Store labels in a PACS as a DICOM object.

    Args:
        image: Labels of a DICOM series.
        text: Address of the PACS.
        format: `seg` (the default) or `rtstruct`.

    Raises:
        FormatError: The format is no DICOM object, or the PACS refused it.
    """
    if format not in (None, "seg", "rtstruct"):
        raise FormatError(f"{text}: a PACS holds DICOM: use format seg or rtstruct, not {format}")
    address = parse_address(text)
    pacs = connect(address)
    with tempfile.TemporaryDirectory(prefix="promptseg-pacs-") as folder:
        path = Path(folder) / "result.dcm"
        write_image(image, path, format or "seg")
        store_files(pacs, address, [path])


def _save(dataset: Dataset, path: Path) -> None:
    try:
        dataset.save_as(path, enforce_file_format=True)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno:
            raise FormatError(f"cannot be written: {os.strerror(error.errno)}") from error
        raise FormatError(f"an object of the PACS is no DICOM file: {error}") from error
