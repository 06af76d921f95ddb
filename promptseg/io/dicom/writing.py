"""Saving a DICOM object, and saying in it what made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset

from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path

MANUFACTURER = "promptseg"
_MOST_TEXT = 64


def add_equipment(target: Dataset, provenance: Mapping[str, Any]) -> None:
    """Say which software, model and adapters made an object."""
    target.Manufacturer = MANUFACTURER
    target.ManufacturerModelName = model_name(provenance)
    target.DeviceSerialNumber = "0"
    target.SoftwareVersions = software_versions(provenance)


def model_name(provenance: Mapping[str, Any]) -> str:
    """Name of the model, or of the program where no model took part."""
    return str((provenance.get("model") or {}).get("name") or MANUFACTURER)[:_MOST_TEXT]


def software_versions(provenance: Mapping[str, Any]) -> list[str]:
    """The program's version, then model and adapters with the start of their digests."""
    found = [str(provenance.get("version") or "unknown")]
    model = provenance.get("model")
    if model:
        found.append(f"model {model['name']} {str(model.get('sha256') or '')[:12]}")
    for one in provenance.get("adapters", []):
        found.append(f"adapter {one['name']} {str(one.get('digest') or '')[:12]}")
    return [one.strip()[:_MOST_TEXT].replace("\\", "/") for one in found]


def save_dataset(dataset: FileDataset, path: Path) -> None:
    """Write an object; all of the file or nothing.

    Raises:
        FormatError: The file cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
