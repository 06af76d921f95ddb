"""Grey values to [0, 1]: fixed windows for CT, percentiles for MR."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from promptseg.errors import VolumeError
from promptseg.volume import Volume, guess_modality

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


@dataclass(frozen=True)
class Window:
    """Grey values that become 0 and 1.

    Args:
        kind: `fixed` limits or `percentile` of the volume.
        low: Value that becomes 0.
        high: Value that becomes 1; above `low`.
        name: Name it was chosen by, or `WIDTH,LEVEL`.
    """

    kind: Literal["fixed", "percentile"]
    low: float
    high: float
    name: str

    def to_dict(self) -> dict[str, str | float]:
        """Plain record for the report."""
        return asdict(self)


def choose_window(volume: Volume, window: str | None = "auto") -> Window:
    """Decide the grey values that become 0 and 1.

    Args:
        volume: The whole volume; percentiles are taken over it, not over a slice.
        window: `auto` or None (CT: soft tissue; MR: percentiles 0.5 and 99.5 of the non-zero
            voxels; guessed where the volume does not say), `mr` or `percentile`, a name in
            `WINDOWS`, or `WIDTH,LEVEL` in the volume's own units.

    Raises:
        VolumeError: the window is none of these; lists the names.
    """
    name = "auto" if window is None else str(window).strip().lower()
    name = name.replace("-", "_").replace(" ", "_") if "," not in name else name
    if name == "auto":
        modality = volume.modality or guess_modality(volume.data)
        name = "soft_tissue" if modality == "CT" else "percentile"
    if name in ("mr", "percentile"):
        return _percentile_window(volume.data)
    if name in WINDOWS:
        width, level = WINDOWS[name]
    else:
        width, level = _parse_width_level(name, window)
    return Window("fixed", level - width / 2, level + width / 2, name)


def normalise(data: np.ndarray, window: Window) -> np.ndarray:
    """Map grey values to float32 in [0, 1], clipped at the window's limits."""
    kind = np.float64 if data.dtype.itemsize > 4 else np.float32
    scaled = np.subtract(data, window.low, dtype=kind, casting="unsafe")
    scaled /= window.high - window.low
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)


def _percentile_window(data: np.ndarray) -> Window:
    low, high = _foreground_percentiles(data)
    if not high > low:
        low, high = float(data.min()), float(data.max())
    if not high > low:
        high = low + max(1.0, abs(low) * 1e-3)
    return Window("percentile", low, high, "percentile")


def _foreground_percentiles(data: np.ndarray) -> tuple[float, float]:
    """Percentiles of the non-zero values; of all where every one is zero."""
    if data.dtype.kind in "biu" and data.dtype.itemsize <= 2:
        return _counted_percentiles(data)
    foreground = data[data != 0]
    low, high = np.percentile(foreground if foreground.size else data, PERCENTILES)
    return float(low), float(high)


def _counted_percentiles(data: np.ndarray) -> tuple[float, float]:
    """The same from a histogram, without sorting: exact for integers of up to 16 bits."""
    lowest, highest = int(data.min()), int(data.max())
    counts = np.zeros(highest - lowest + 1, dtype=np.int64)
    for plane in data.T:
        counts += np.bincount(plane.ravel().astype(np.intp) - lowest, minlength=len(counts))
    if lowest <= 0 <= highest and np.count_nonzero(counts) > 1:
        counts[-lowest] = 0
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
            f"window {given!r} is unknown: use auto, mr, WIDTH,LEVEL or one of {known}"
        ) from error
    if not (math.isfinite(width) and math.isfinite(level) and width > 0):
        raise VolumeError(f"window {given!r}: the width must be above 0 and both finite")
    return width, level
