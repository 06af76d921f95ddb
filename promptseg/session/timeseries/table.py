"""Volume over time, and the ejection fraction."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path
from promptseg.session.timeseries.reading import Phase
from promptseg.volume import Segmentation

COLUMNS = ("phase", "time_ms", "target", "name", "volume_ml", "predicted_quality")
"""Of the table."""


def volume_table(phases: Sequence[Phase], results: Sequence[Segmentation]) -> list[dict[str, Any]]:
    """A row for each phase and target: phase, milliseconds, target, name, millilitres, quality."""
    return [
        {
            "phase": number,
            "time_ms": phase.time_ms,
            "target": target,
            "name": result.labels.get(target, ""),
            "volume_ml": result.volume_ml(target),
            "predicted_quality": result.score.get(target),
        }
        for number, (phase, result) in enumerate(zip(phases, results, strict=True))
        for target in result.targets
    ]


def ejection(results: Sequence[Segmentation], target: int) -> dict[str, Any]:
    """How much of a cavity's largest volume it gives off.

    Args:
        results: Labels by phase.
        target: A cavity, such as the left ventricle's.

    Returns:
        `end_diastolic_ml` and its `phase`, `end_systolic_ml`, `stroke_volume_ml` and
        `ejection_fraction`, (EDV - ESV) / EDV in [0, 1]; None of a target that is nowhere.
    """
    volumes = np.array([result.volume_ml(target) for result in results])
    largest, smallest = int(volumes.argmax()), int(volumes.argmin())
    given_off = float(volumes[largest] - volumes[smallest])
    return {
        "end_diastolic_ml": float(volumes[largest]),
        "end_diastolic_phase": largest,
        "end_systolic_ml": float(volumes[smallest]),
        "end_systolic_phase": smallest,
        "stroke_volume_ml": given_off,
        "ejection_fraction": given_off / float(volumes[largest]) if volumes[largest] else None,
    }


def write_table(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write the rows as CSV, all of them or nothing.

    Raises:
        FormatError: The file cannot be written.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    )
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(buffer.getvalue(), encoding="utf-8-sig", newline="")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def save_phases(results: Sequence[Segmentation], path: str | os.PathLike[str]) -> None:
    """Write the labels of all phases as one 4D NIfTI file.

    Raises:
        FormatError: The file is not to end in .nii or .nii.gz, or cannot be written.
    """
    import nibabel as nib

    from promptseg.io.provenance import to_text

    if not str(path).lower().endswith((".nii", ".nii.gz")):
        raise FormatError(f"{path}: labels of several phases go into .nii or .nii.gz")
    data = np.stack([result.data for result in results], axis=-1)
    image = nib.Nifti1Image(data.astype(np.min_scalar_type(int(data.max()))), results[0].affine)
    image.header.set_xyzt_units("mm", "msec")
    comment = nib.nifti1.Nifti1Extension(6, to_text(results[0].provenance).encode())
    image.header.extensions.append(comment)
    try:
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
