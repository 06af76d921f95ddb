"""Phases of a time series: 4D NIfTI, a multi-phase DICOM series, or one file a phase."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import FormatError, VolumeError
from promptseg.io import DEFAULT_MAX_BYTES
from promptseg.volume import Volume, read

_SAME_GRID_MM = 1e-2
_TIMED = re.compile(
    r"(TemporalPosition|NominalCardiac|NominalPercentage|TriggerTime|FrameReferenceTime"
    r"|Acquisition|ContentTime|time point)"
)
_TRIGGER = re.compile(r"(?:TriggerTime|NominalCardiacTriggerDelayTime) ([\d.]+)")
_MILLISECONDS = {"sec": 1000.0, "msec": 1.0, "usec": 0.001}
_NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class Phase:
    """One moment of a time series.

    Args:
        volume: The image then.
        time_ms: Milliseconds since the first phase; None where the files do not say.
        name: What the files call it.
    """

    volume: Volume
    time_ms: float | None = None
    name: str = ""


def read_phases(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    series: int | str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> list[Phase]:
    """Read a time series, in order of time.

    Args:
        paths: A 4D NIfTI file, a folder or zip file of a multi-phase DICOM series, or one image
            for each phase in order.
        series: Which DICOM series of several, by number or SeriesInstanceUID.
        max_bytes: Refuse what needs more memory than this.

    Returns:
        Two phases or more, on one grid.

    Raises:
        FormatError: A file is missing or damaged, or a series must be chosen.
        VolumeError: There is one phase only, or the phases are on different grids.
    """
    places = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not places:
        raise FormatError("no file of a time series is given")
    phases = _of_one(Path(places[0]), series, max_bytes) if len(places) == 1 else []
    for place in places if len(places) > 1 else ():
        volume = read(place, max_bytes, series)
        phases.append(Phase(volume, name=Path(place).name.partition(".")[0]))
    if len(phases) < 2:
        raise VolumeError(f"{places[0]}: has one phase only: use `promptseg segment`")
    _check_grids(phases, places)
    return phases


def _of_one(path: Path, series: int | str | None, max_bytes: int) -> list[Phase]:
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder")
    if path.is_file() and path.name.lower().endswith(_NIFTI):
        return list(_of_nifti(path, max_bytes))
    return list(_of_dicom(path, series, max_bytes))


def _of_nifti(path: Path, max_bytes: int) -> Iterator[Phase]:
    """Each phase through the reader of 3D files, which knows of units, padding and damage."""
    import nibabel as nib

    image = _opened(path)
    shape = image.shape
    if len(shape) != 4:
        raise VolumeError(f"{path}: is {len(shape)}D with shape {shape}, no time series")
    needed = math.prod(shape) * image.get_data_dtype().itemsize
    if needed > max_bytes:
        raise VolumeError(f"{path}: needs {needed} bytes, the limit is {max_bytes}")
    unit = _MILLISECONDS.get(image.header.get_xyzt_units()[1])
    step = float(image.header.get_zooms()[3])
    timed = unit is not None and math.isfinite(step) and step > 0
    with tempfile.TemporaryDirectory(prefix="promptseg-phases-") as folder:
        for index in range(shape[3]):
            part = Path(folder) / "phase.nii"
            try:
                nib.save(image.slicer[..., index], part)
            except (OSError, EOFError, ValueError) as error:
                raise FormatError(f"{path}: damaged or truncated: {error}") from error
            volume = replace(read(part, max_bytes), source=path)
            time = index * step * unit if timed and unit else None
            yield Phase(volume, time, f"phase {index}")


def _opened(path: Path) -> Any:
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        return nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError) as error:
        raise FormatError(f"{path}: not a NIfTI file, or damaged: {error}") from error


def _of_dicom(path: Path, series: int | str | None, max_bytes: int) -> Iterator[Phase]:
    from promptseg.io.dicom import list_series, read_stack

    found = list_series(path, max_bytes)
    able = [one for one in found.series if len(one.stacks) > 1]
    if series is not None:
        able = [one for one in found.series if str(series) in (str(one.number), one.uid)]
    if len(able) != 1:
        listed = "; ".join(line for one in found.series for line in one.lines())
        what = "no series has several volumes" if not able else "several series, choose one"
        raise FormatError(f"{path}: {what}: {listed}")
    stacks = able[0].stacks
    odd = [stack.what for stack in stacks if not _TIMED.search(stack.what)]
    if odd and len(stacks) > 1:
        raise VolumeError(
            f"{path}: the volumes of the series differ in {odd[0] or 'nothing that is named'}, "
            "not in time"
        )
    times = _times([stack.what for stack in stacks])
    order = sorted(range(len(stacks)), key=lambda n: 0.0 if times is None else times[n])
    for index in order:
        image = read_stack(able[0], stacks[index], max_bytes, found.notes)
        modality: Any = image.modality if image.modality in ("CT", "MR") else None
        volume = Volume(image.data, image.affine, modality, image.header, path, image.notes)
        time = None if times is None else times[index] - min(times)
        yield Phase(volume, time, stacks[index].what)


def _times(names: Sequence[str]) -> list[float] | None:
    """Milliseconds after the trigger of every phase, None if they do not all differ."""
    found = [_TRIGGER.search(name) for name in names]
    times = [float(one.group(1)) for one in found if one is not None]
    return times if len(set(times)) == len(names) else None


def _check_grids(phases: Sequence[Phase], places: Sequence[Any]) -> None:
    first = phases[0].volume
    for number, phase in enumerate(phases):
        other = phase.volume
        where = places[number] if len(places) > 1 else f"{places[0]}, phase {number}"
        if other.shape != first.shape:
            raise VolumeError(
                f"{where}: shape {other.shape}, the first phase has {first.shape}: phases must be "
                "on one grid"
            )
        apart = float(np.abs(other.affine - first.affine).max())
        if apart > _SAME_GRID_MM:
            raise VolumeError(
                f"{where}: its affine differs by up to {apart:.3g} from the first phase's: phases "
                "must be on one grid"
            )
