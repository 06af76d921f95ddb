"""Arrays that know where they are: a volume and its segmentation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import FormatError, VolumeError
from promptseg.io import Image, write_image
from promptseg.io.image import label_values
from promptseg.io.pacs.address import is_address
from promptseg.io.provenance import provenance_of
from promptseg.volume.grey_levels import GreyLevels, Modality, assess
from promptseg.volume.grid import (
    CoordinateFrame,
    checked_affine,
    checked_data,
    checked_frame,
    digest,
    finite,
    grid_text,
    note_of_bad,
    shown_volume,
    spacing_of,
)

_LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
MODALITIES: tuple[Modality, ...] = ("CT", "MR", "other")


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D scalar image and its place in the world; never reoriented.

    Args:
        data: (I, J, K) values as the file stores them, after its own slope and intercept.
        affine: (4, 4) voxel index to RAS+ millimetres; voxel centres are at whole numbers.
        modality: `CT`, `MR`, `other`, or None where neither the file nor its grey values say.
        header: The header object of the reader, carried through to the output file.
        source: Path the volume was read from, or its address in a PACS.
        notes: What the reader repaired, left out or found unusual, each a sentence.
        guessed: True if the modality was told by the grey values alone.

    NaN and infinite voxels become background, with a note.

    Raises:
        VolumeError: not 3D, not real numbers, no finite voxel, zero or NaN spacing, or an affine
            that cannot be inverted.

    Example:
        >>> import numpy as np
        >>> from promptseg import Volume
        >>> Volume(np.zeros((64, 48, 20), np.int16), np.diag([0.8, 0.8, 3, 1]), "MR")
        Volume(64 x 48 x 20 voxels of 0.8 x 0.8 x 3 mm, int16, MR)
    """

    data: np.ndarray
    affine: np.ndarray
    modality: Modality | None = None
    header: Any = field(default=None, repr=False)
    source: Path | str | None = None
    notes: tuple[str, ...] = field(default=(), repr=False)
    guessed: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        data = checked_data(self.data)
        object.__setattr__(self, "data", finite(data))
        object.__setattr__(self, "affine", checked_affine(self.affine))
        if self.data is not data:
            object.__setattr__(self, "notes", (*self.notes, note_of_bad(data)))
        if self.modality is not None and self.modality not in MODALITIES:
            raise VolumeError(f"modality is {self.modality!r}: use 'CT', 'MR', 'other' or None")

    def __repr__(self) -> str:
        kind = self.modality or "unknown modality"
        return f"Volume({grid_text(self.data, self.affine)}, {self.data.dtype}, {kind})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K) voxels."""
        i, j, k = self.data.shape
        return i, j, k

    @property
    def spacing(self) -> np.ndarray:
        """(3,) millimetres between neighbouring voxel centres along i, j, k."""
        return spacing_of(self.affine)

    @cached_property
    def levels(self) -> GreyLevels:
        """What the grey values are: modality, scale, padding; computed once."""
        return assess(self.data, None if self.guessed else self.modality)

    @cached_property
    def sha256(self) -> str:
        """Digest of values, shape, type and affine; computed once."""
        return digest(self.data, self.affine)

    def to_world(self, voxels: np.ndarray, frame: CoordinateFrame = "ras") -> np.ndarray:
        """Map (N, 3) voxel coordinates to (N, 3) coordinates in `frame`, in millimetres."""
        points = np.asarray(voxels, dtype=np.float64)
        if checked_frame(frame) == "voxel":
            return points.copy()
        world = points @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world * _LPS_FROM_RAS if frame == "lps" else world

    def to_voxels(self, points: np.ndarray, frame: CoordinateFrame = "ras") -> np.ndarray:
        """Map (N, 3) coordinates in `frame` to (N, 3) continuous voxel coordinates."""
        world = np.asarray(points, dtype=np.float64)
        if checked_frame(frame) == "voxel":
            return world.copy()
        if frame == "lps":
            world = world * _LPS_FROM_RAS
        inverse = np.linalg.inv(self.affine[:3, :3])
        return (world - self.affine[:3, 3]) @ inverse.T


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Integer labels on a volume's own grid.

    Args:
        data: (I, J, K) integers, 0 is background.
        affine: (4, 4) of the volume.
        score: Predicted quality in [0, 1] by target.
        uncertainty: (I, J, K) float32 in [0, 1], or None where it was not asked for; see
            `Session.uncertainty`.
        report: What was done: window, axis, timings and so on.
        header: Header of the volume the grid came from.
        labels: Names by target.
        layers: (I, J, K) bool mask, by target, of those that share voxels with others; `data`
            shows one of them there. Formats that hold one label a voxel refuse them.

    Raises:
        VolumeError: the labels are not integers or not 3D, or a grid does not match.

    Example:
        >>> import numpy as np
        >>> from promptseg import Segmentation
        >>> labels = np.zeros((64, 48, 20), np.uint8)
        >>> labels[10:20, 10:20, 5:15] = 2
        >>> round(Segmentation(labels, np.diag([1, 1, 3, 1])).volume_ml(2), 3)
        3.0
    """

    data: np.ndarray
    affine: np.ndarray
    score: Mapping[int, float] = field(default_factory=dict)
    uncertainty: np.ndarray | None = field(default=None, repr=False)
    report: dict[str, Any] = field(default_factory=dict, repr=False)
    header: Any = field(default=None, repr=False)
    labels: Mapping[int, str] = field(default_factory=dict)
    layers: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        data = checked_data(self.data)
        if data.dtype.kind not in "biu":
            raise VolumeError(f"labels are {data.dtype}: round them to integers first")
        if self.uncertainty is not None and self.uncertainty.shape != data.shape:
            raise VolumeError(
                f"uncertainty has shape {self.uncertainty.shape}, the labels {data.shape}"
            )
        for target, layer in self.layers.items():
            if layer.shape != data.shape or layer.dtype != bool:
                raise VolumeError(
                    f"the layer of target {target} is {layer.dtype} of shape {layer.shape}: give "
                    f"bool of shape {data.shape}"
                )
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "affine", checked_affine(self.affine))

    def __repr__(self) -> str:
        found = [
            f"{self.labels.get(target, f'target {target}')} {shown_volume(self.volume_ml(target))}"
            + (f", score {self.score[target]:.2f}" if target in self.score else "")
            for target in self.targets
        ]
        return f"Segmentation({grid_text(self.data, self.affine)}: {'; '.join(found) or 'empty'})"

    @classmethod
    def from_volume(cls, volume: Volume, data: np.ndarray, **fields: Any) -> Segmentation:
        """Put (I, J, K) labels on the grid of `volume`; `fields` as in the constructor."""
        if np.shape(data) != volume.shape:
            raise VolumeError(f"labels have shape {np.shape(data)}, the volume {volume.shape}")
        return cls(data, volume.affine, header=volume.header, **fields)

    @property
    def targets(self) -> tuple[int, ...]:
        """Targets that were asked for or found, in order; a target may have an empty mask."""
        return tuple(sorted({*label_values(self.data), *self.score, *self.layers}))

    @property
    def provenance(self) -> dict[str, Any]:
        """Software, model and adapters that made the labels, small enough for a file's header."""

        return provenance_of(self.report)

    @cached_property
    def sha256(self) -> str:
        """Digest of labels, shape, type, affine and layers; computed once."""
        plain = digest(self.data, self.affine)
        if not self.layers:
            return plain
        state = hashlib.sha256(plain.encode())
        for target in sorted(self.layers):
            state.update(f"{target} {digest(self.layers[target], self.affine)}".encode())
        return state.hexdigest()

    def mask(self, target: int) -> np.ndarray:
        """(I, J, K) bool mask of one target."""
        layer = self.layers.get(target)
        return self.data == target if layer is None else layer

    def volume_ml(self, target: int) -> float:
        """Volume of one target in millilitres."""
        voxel_mm3 = abs(float(np.linalg.det(self.affine[:3, :3])))
        return int(np.count_nonzero(self.mask(target))) * voxel_mm3 / 1000.0

    def save(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        """Write the labels; the format follows the suffix unless `format` names it.

        Args:
            path: Output file.
            format: Name in `promptseg.io.FORMATS`: `nifti`, `nrrd`, `seg.nrrd`, `metaimage`, and
                for a DICOM series `rtstruct`, `seg` or `labelmap`.
            names: Names by target where the format has them, written as they are given. Others
                go by `labels`, in TG-263 spelling where a name is known.

        Raises:
            FormatError: the format is unknown, cannot hold them, or the file cannot be written;
                or a target that is named does not exist.
        """
        content = self._image(names or {})
        if is_address(path):
            from promptseg.io.pacs.exchange import write as put

            put(content, str(path), format)
        else:
            write_image(content, path, format)

    def _image(self, names: Mapping[int, str]) -> Image:
        """What a file is to hold."""
        strange = sorted(set(names) - set(self.targets) - set(self.labels))
        if strange:
            raise FormatError(f"names has target {strange[0]}, the result has {self.targets}")
        return Image(
            self.data,
            self.affine,
            header=self.header,
            names={**self.labels, **names},
            verbatim=frozenset(names),
            layers=self.layers,
            provenance=self.provenance,
        )
