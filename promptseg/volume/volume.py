"""Arrays that know where they are: a volume and its segmentation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from promptseg.errors import FormatError, PromptError, VolumeError
from promptseg.io import DEFAULT_MAX_BYTES, Image, labels_on, read_image, write_image
from promptseg.io.pacs.address import is_address
from promptseg.io.provenance import provenance_of
from promptseg.volume.grey_levels import GreyLevels, Modality, assess

CoordinateFrame = Literal["voxel", "ras", "lps"]

FRAMES: tuple[CoordinateFrame, ...] = ("voxel", "ras", "lps")
_LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
_SINGULAR = 1e-6
MODALITIES: tuple[Modality, ...] = ("CT", "MR", "other")
# Cosines of directions that a header keeps in single precision.
_AS_GOOD = 1e-4


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
        data = _checked_data(self.data)
        object.__setattr__(self, "data", _finite(data))
        object.__setattr__(self, "affine", _checked_affine(self.affine))
        if self.data is not data:
            object.__setattr__(self, "notes", (*self.notes, _note_of_bad(data)))
        if self.modality is not None and self.modality not in MODALITIES:
            raise VolumeError(f"modality is {self.modality!r}: use 'CT', 'MR', 'other' or None")

    def __repr__(self) -> str:
        kind = self.modality or "unknown modality"
        return f"Volume({_grid(self.data, self.affine)}, {self.data.dtype}, {kind})"

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
        if _checked_frame(frame) == "voxel":
            return points.copy()
        world = points @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world * _LPS_FROM_RAS if frame == "lps" else world

    def to_voxels(self, points: np.ndarray, frame: CoordinateFrame = "ras") -> np.ndarray:
        """Map (N, 3) coordinates in `frame` to (N, 3) continuous voxel coordinates."""
        world = np.asarray(points, dtype=np.float64)
        if _checked_frame(frame) == "voxel":
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
        data = _checked_data(self.data)
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
        object.__setattr__(self, "affine", _checked_affine(self.affine))

    def __repr__(self) -> str:
        found = [
            f"{self.labels.get(target, f'target {target}')} {shown_volume(self.volume_ml(target))}"
            + (f", score {self.score[target]:.2f}" if target in self.score else "")
            for target in self.targets
        ]
        return f"Segmentation({_grid(self.data, self.affine)}: {'; '.join(found) or 'empty'})"

    @classmethod
    def from_volume(cls, volume: Volume, data: np.ndarray, **fields: Any) -> Segmentation:
        """Put (I, J, K) labels on the grid of `volume`; `fields` as in the constructor."""
        if np.shape(data) != volume.shape:
            raise VolumeError(f"labels have shape {np.shape(data)}, the volume {volume.shape}")
        return cls(data, volume.affine, header=volume.header, **fields)

    @property
    def targets(self) -> tuple[int, ...]:
        """Targets that were asked for or found, in order; a target may have an empty mask."""
        found = {int(value) for value in np.unique(self.data)} - {0}
        return tuple(sorted(found | set(self.score) | set(self.layers)))

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


def _grid(data: np.ndarray, affine: np.ndarray) -> str:
    voxels = " x ".join(str(side) for side in data.shape)
    sides = " x ".join(f"{side:.3g}" for side in spacing_of(affine))
    return f"{voxels} voxels of {sides} mm"


def shown_volume(millilitres: float) -> str:
    """A volume for a person: millilitres, below a tenth of one cubic millimetres.

    Example:
        >>> shown_volume(24.18), shown_volume(0.05), shown_volume(0.0)
        ('24.2 ml', '50 mm3', '0.0 ml')
    """
    if 0 < millilitres < 0.1:
        return f"{millilitres * 1000:.3g} mm3"
    return f"{millilitres:.1f} ml"


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) lengths of the columns of a (4, 4) affine, in millimetres."""
    return np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))


def anatomical_axes(affine: np.ndarray) -> tuple[int, int, int]:
    """Voxel axes most along right, anterior and superior, each used once.

    The assignment with the largest sum of direction cosines wins, so that even a grid turned
    by 45 degrees has one axis for each direction. Where several are as good, the directions
    themselves decide and not their order, so that the same grid stored in another order has the
    same axes in the world.
    """
    directions = np.asarray(affine, dtype=np.float64)[:3, :3] / spacing_of(affine)
    cosines = np.abs(directions)
    sums = {axes: float(cosines[range(3), axes].sum()) for axes in permutations(range(3))}
    best = [axes for axes, total in sums.items() if total > max(sums.values()) - _AS_GOOD]
    r, a, s = max(best, key=lambda axes: _seen_from(directions, axes))
    return r, a, s


def _seen_from(directions: np.ndarray, axes: Sequence[int]) -> list[float]:
    """Directions of an assignment, each turned to where it should run; no order in the file."""
    turned = [
        directions[:, axis] * (1 if directions[row, axis] >= 0 else -1)
        for row, axis in enumerate(axes)
    ]
    return [round(float(part), 4) + 0.0 for direction in turned for part in direction]


def bounding_slices(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Slices around the true elements of a mask, one for each axis; None if there are none.

    Example:
        >>> import numpy as np
        >>> bounding_slices(np.eye(4, 6) > 0)
        (slice(0, 4, None), slice(0, 4, None))
    """
    sides = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))
        if hit.size == 0:
            return None
        sides.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(sides)


def pasted(part: np.ndarray, where: tuple[slice, ...], shape: Sequence[int]) -> np.ndarray:
    """An array of zeros of `shape` with `part` in it; the other way round of `whole[where]`.

    Example:
        >>> import numpy as np
        >>> pasted(np.ones((1, 2), int), (slice(0, 1), slice(1, 3)), (2, 3))
        array([[0, 1, 1],
               [0, 0, 0]])
    """
    whole = np.zeros(tuple(shape), part.dtype)
    whole[where] = part
    return whole


def digest(data: np.ndarray, affine: np.ndarray) -> str:
    """Sha256 of values, shape, type and affine; the same for any memory order."""
    state = hashlib.sha256(f"{data.dtype.str} {data.shape}".encode())
    state.update(np.ascontiguousarray(affine, dtype=np.float64).tobytes())
    for plane in data.T:
        state.update(np.ascontiguousarray(plane).data)
    return state.hexdigest()


def _checked_frame(frame: str) -> str:
    if frame not in FRAMES:
        raise PromptError(f"frame is {frame!r}: use one of {', '.join(FRAMES)}")
    return frame


def _checked_data(data: np.ndarray) -> np.ndarray:
    data = np.asarray(data)
    if data.ndim != 3:
        advice = "split it into 3D volumes" if data.ndim > 3 else "give it a third axis"
        raise VolumeError(f"the image is {data.ndim}D with shape {data.shape}, not 3D: {advice}")
    if data.size == 0:
        raise VolumeError(f"the image has no voxel: shape {data.shape}")
    if data.dtype.kind not in "biuf":
        raise VolumeError(f"voxels are {data.dtype}, not real numbers: convert them to one channel")
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return data


def _finite(data: np.ndarray) -> np.ndarray:
    """Values with background for NaN and infinity; the very array if there are none.

    Background is 0, which windows leave out, or the lowest value where there are lower ones.
    """
    if data.dtype.kind != "f":
        return data
    good = np.isfinite(data)
    if good.all():
        return data
    if not good.any():
        raise VolumeError(f"the image has no finite voxel of {data.size}: export it again")
    return np.where(good, data, min(0, data[good].min())).astype(data.dtype, copy=False)


def _note_of_bad(data: np.ndarray) -> str:
    bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    return f"{bad} of {data.size} voxels are NaN or infinite: taken as background"


def _checked_affine(affine: np.ndarray) -> np.ndarray:
    try:
        affine = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise VolumeError(f"the affine is not a matrix of numbers: {error}") from error
    if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise VolumeError(f"the affine must be 4x4 with last row 0 0 0 1, found {affine.tolist()}")
    with np.errstate(all="ignore"):
        spacing = spacing_of(affine)
        usable = bool(np.all(np.isfinite(affine)) and np.all(np.isfinite(spacing)))
        if not usable or not np.all(spacing > 0):
            shown = ", ".join(f"{value:g}" for value in spacing)
            raise VolumeError(f"the spacing is ({shown}) mm: every axis needs a positive number")
        volume = abs(np.linalg.det(affine[:3, :3] / spacing))
    if not volume > _SINGULAR:
        raise VolumeError("the affine is singular: two voxel axes point the same way")
    return affine
