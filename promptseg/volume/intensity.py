"""Grey values to [0, 1]: fixed windows for CT, percentiles for MR.

A window in Hounsfield units is moved to where the file has them: shifted, scaled or as they are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from promptseg.errors import VolumeError
from promptseg.volume.grey_levels import GreyLevels
from promptseg.volume.volume import Volume

WINDOWS: dict[str, tuple[float, float]] = {
    "soft_tissue": (400.0, 40.0),
    "abdomen": (400.0, 50.0),
    "liver": (150.0, 60.0),
    "pelvis": (400.0, 40.0),
    "mediastinum": (350.0, 50.0),
    "lung": (1500.0, -600.0),
    "angio": (600.0, 300.0),
    "bone": (1800.0, 400.0),
    "spine": (250.0, 50.0),
    "brain": (80.0, 40.0),
    "stroke": (40.0, 40.0),
    "subdural": (215.0, 75.0),
    "temporal_bone": (2800.0, 600.0),
}
"""CT windows by name: (width, level) in Hounsfield units, the usual clinical settings."""

PERCENTILES = (0.5, 99.5)
# A window that leaves fewer voxels between black and white shows nothing.
_LEAST_SHOWN = 0.002


@dataclass(frozen=True)
class Window:
    """Grey values that become 0 and 1.

    Args:
        kind: `fixed` limits or `percentile` of the volume.
        low: Value that becomes 0.
        high: Value that becomes 1; above `low`.
        name: Name it was chosen by, or `WIDTH,LEVEL`.
        note: Why it is not the one that was asked for; else empty.
    """

    kind: Literal["fixed", "percentile"]
    low: float
    high: float
    name: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.low:.5g} to {self.high:.5g})"

    def to_dict(self) -> dict[str, str | float]:
        """Plain record for the report."""
        return asdict(self)


def choose_window(volume: Volume, window: str | None = "auto") -> Window:
    """Decide the grey values that become 0 and 1.

    Args:
        volume: The whole volume; percentiles are taken over it, not over a slice.
        window: `auto` or None (CT: soft tissue; else percentiles 0.5 and 99.5 of the non-zero
            voxels without padding and metal, or `full` where a window was applied before; guessed
            where the volume does not say), `full` for the whole range, `mr` or `percentile`, a
            name in `WINDOWS`, in Hounsfield units wherever the volume has them, or `WIDTH,LEVEL`
            in the volume's own units.

    Raises:
        VolumeError: the window is none of these; lists the names.
    """
    name = "auto" if window is None else str(window).strip().lower()
    name = name.replace("-", "_").replace(" ", "_") if "," not in name else name
    if name == "auto":
        name = "soft_tissue" if volume.levels.modality == "CT" else _shown_whole(volume.levels)
    if name == "full":
        return _full_window(volume.data, volume.levels)
    if name in ("mr", "percentile"):
        return _percentile_window(volume.data, volume.levels)
    if name in WINDOWS:
        return _named_window(volume, name)
    width, level = _parse_width_level(name, window)
    return Window("fixed", level - width / 2, level + width / 2, name)


def normalise(data: np.ndarray, window: Window) -> np.ndarray:
    """Map grey values to float32 in [0, 1], clipped at the window's limits."""
    kind = np.float64 if data.dtype.itemsize > 4 else np.float32
    scaled = np.subtract(data, window.low, dtype=kind, casting="unsafe", order="F")
    scaled /= window.high - window.low
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)


def _named_window(volume: Volume, name: str) -> Window:
    """A window in Hounsfield units, where the volume has them; else what shows the image."""
    width, level = WINDOWS[name]
    low, high = level - width / 2, level + width / 2
    levels = volume.levels
    if levels.scale is not None:
        return Window("fixed", levels.scale.grey(low), levels.scale.grey(high), name)
    if volume.data.min() == volume.data.max():
        return Window("fixed", low, high, name)
    if not levels.shown and _shown_between(volume.data, low, high) >= _LEAST_SHOWN:
        return Window("fixed", low, high, name)
    other = choose_window(volume, _shown_whole(levels))
    note = f"the grey values are no Hounsfield units: window {name} is left out for {other.name}"
    return replace(other, note=note)


def _shown_whole(levels: GreyLevels) -> str:
    """`full` for values that a window was applied to before, since it cut the ends off."""
    return "full" if levels.windowed else "percentile"


def _full_window(data: np.ndarray, levels: GreyLevels) -> Window:
    """From the lowest to the highest value of the image."""
    low = max(float(data.min()), levels.low)
    high = min(float(data.max()), levels.high)
    return Window("fixed", low, high if high > low else low + 1.0, "full")


def _shown_between(data: np.ndarray, low: float, high: float) -> float:
    """Share of the voxels that are neither black nor white."""
    return float(np.mean((data > low) & (data < high)))


def _percentile_window(data: np.ndarray, levels: GreyLevels) -> Window:
    low, high = _foreground_percentiles(data, levels)
    if not high > low:
        low, high = float(data.min()), float(data.max())
    if not high > low:
        high = low + max(1.0, abs(low) * 1e-3)
    return Window("percentile", low, high, "percentile")


def _foreground_percentiles(data: np.ndarray, levels: GreyLevels) -> tuple[float, float]:
    """Percentiles of the image without 0, padding and metal; of all where nothing is left."""
    if data.dtype.kind in "biu" and data.dtype.itemsize <= 2:
        return _counted_percentiles(data, levels)
    kept = data != 0
    if np.isfinite(levels.low) or np.isfinite(levels.high):
        kept &= (data >= levels.low) & (data <= levels.high)
    foreground = data[kept]
    low, high = np.percentile(foreground if foreground.size else data, PERCENTILES)
    return float(low), float(high)


def _counted_percentiles(data: np.ndarray, levels: GreyLevels) -> tuple[float, float]:
    """The same from a histogram, without sorting: exact for integers of up to 16 bits."""
    lowest, highest = int(data.min()), int(data.max())
    counts = np.zeros(highest - lowest + 1, dtype=np.int64)
    for plane in data.T:
        counts += np.bincount(plane.ravel().astype(np.intp) - lowest, minlength=len(counts))
    values = np.arange(lowest, highest + 1)
    image = counts * ((values != 0) & (values >= levels.low) & (values <= levels.high))
    counts = image if image.any() else counts
    ends = np.cumsum(counts)
    places = (ends[-1] - 1) * np.array(PERCENTILES) / 100
    below, above = (np.searchsorted(ends, whole(places), "right") for whole in (np.floor, np.ceil))
    low, high = lowest + below + (above - below) * (places - np.floor(places))
    return float(low), float(high)


def _parse_width_level(name: str, given: str | None) -> tuple[float, float]:
    try:
        width, level = (float(part) for part in name.split(","))
    except ValueError as error:
        known = ", ".join(WINDOWS)
        raise VolumeError(
            f"window {given!r} is unknown: use auto, full, mr, WIDTH,LEVEL or one of {known}"
        ) from error
    if not (math.isfinite(width) and math.isfinite(level) and width > 0):
        raise VolumeError(f"window {given!r}: the width must be above 0 and both finite")
    return width, level
