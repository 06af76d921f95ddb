"""Segmentations of 3D Slicer (.seg.nrrd): named segments, in layers where they overlap."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import FormatError
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.nrrd_file import geometry_fields, provenance_fields, read_nrrd, write_nrrd
from promptseg.io.provenance import KEY, to_text

_SEGMENT = re.compile(r"Segment(\d+)_LabelValue$")


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read the segments as labels, by their label values; where these repeat, counted from 1.

    Raises:
        FormatError: Missing, no NRRD, damaged or without segments.
        VolumeError: It is no 3D grid.
    """
    from promptseg.io.dicom.boxed import Boxed, labelled

    path = Path(path)
    found = read_nrrd(path, max_bytes)
    layers = _layers(found.data, found.spatial)
    segments = _segments(path, found.header)
    values = [one["value"] for one in segments]
    counted = len(set(values)) < len(values) or 0 in values
    masks, names = {}, {}
    for place, one in enumerate(segments, start=1):
        if one["layer"] >= len(layers):
            raise FormatError(f"{path}: a segment is in layer {one['layer']} of {len(layers)}")
        number = place if counted else one["value"]
        masks[number] = Boxed(np.zeros(3, int), layers[one["layer"]] == one["value"])
        names[number] = one["name"]
    return labelled(masks, names, layers[0].shape, found.affine, found.notes)


def write(image: Image, path: str | os.PathLike[str]) -> None:
    """Write labels as segments with names, colours and SNOMED codes.

    Raises:
        FormatError: The file cannot be written.
    """
    from promptseg.io.dicom.names import named_targets

    targets = named_targets(image)
    layers = _apart(image, [one.target for one in targets])
    data = _stacked(image, layers)
    fields = geometry_fields(image.affine)
    if len(layers) > 1:
        spatial = [*fields["space directions"]]
        fields["space directions"] = np.array([np.full(3, np.nan), *spatial])
        fields["kinds"] = ["list", "domain", "domain", "domain"]
    else:
        fields["kinds"] = ["domain", "domain", "domain"]
    fields |= {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for place, one in enumerate(targets):
        layer = next(n for n, held in enumerate(layers) if one.target in held)
        fields |= _fields(place, one, layer, image)
    if image.provenance is not None:
        fields[KEY] = to_text(image.provenance)
    write_nrrd(Path(path), data, fields)


def provenance_texts(path: Path) -> list[str]:
    """The field that says what made the labels."""
    return provenance_fields(path)


def _layers(data: np.ndarray, spatial: tuple[int, ...]) -> list[np.ndarray]:
    others = [axis for axis in range(data.ndim) if axis not in spatial]
    turned = data.transpose(*others, *spatial)
    return list(turned.reshape(-1, *turned.shape[len(others) :]))


def _segments(path: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    numbers = sorted(int(m.group(1)) for key in header if (m := _SEGMENT.match(key)))
    if not numbers:
        raise FormatError(f"{path}: names no segments: rename it to .nrrd if it is an image")
    try:
        return [
            {
                "value": int(header[f"Segment{n}_LabelValue"]),
                "layer": int(header.get(f"Segment{n}_Layer", 0)),
                "name": str(header.get(f"Segment{n}_Name", "")),
            }
            for n in numbers
        ]
    except ValueError as error:
        raise FormatError(f"{path}: a segment's label or layer is no number: {error}") from error


def _apart(image: Image, targets: list[int]) -> list[list[int]]:
    """Targets by layer, so that none overlaps another of its layer."""
    layers: list[list[int]] = [[one for one in targets if one not in image.layers]]
    for target in image.layers:
        for layer in layers:
            if not any((image.mask(target) & image.mask(held)).any() for held in layer):
                layer.append(target)
                break
        else:
            layers.append([target])
    return [layer for layer in layers if layer] or [[]]


def _stacked(image: Image, layers: list[list[int]]) -> np.ndarray:
    kind = np.uint8 if max(image.targets, default=0) < 256 else np.uint16
    found = np.zeros((len(layers), *image.data.shape), kind)
    for place, layer in enumerate(layers):
        for target in layer:
            found[place][image.mask(target)] = target
    return np.asfortranarray(found[0] if len(layers) == 1 else found)


def _fields(place: int, one: Any, layer: int, image: Image) -> dict[str, str]:
    box = image.box(one.target) or (slice(0, 0),) * 3
    extent = " ".join(f"{side.start} {side.stop - 1}" for side in box)
    side = f"SCT^{one.side_code[0]}^{one.side_code[1]}" if one.side_code else "^^"
    codes = "~".join(f"SCT^{code[0]}^{code[1]}" for code in (one.category, one.type_code))
    entry = f"Segmentation category and type - DICOM master list~{codes}~{side}"
    head = f"Segment{place}_"
    return {
        f"{head}ID": f"Segment_{one.target}",
        f"{head}Name": one.name,
        f"{head}NameAutoGenerated": "0",
        f"{head}Color": " ".join(f"{value / 255:.6g}" for value in one.colour),
        f"{head}ColorAutoGenerated": "0",
        f"{head}LabelValue": str(one.target),
        f"{head}Layer": str(layer),
        f"{head}Extent": extent,
        f"{head}Tags": f"TerminologyEntry:{entry}~Anatomic codes - DICOM master list~^^~^^|",
    }
