"""Whether grey values are Hounsfield units, shifted or scaled ones, or none at all.

Air is near -1000 HU whatever the scanner, fat near -100, and the soft tissue of every organ lies
within a hundred units of water. Magnetic resonance has no such scale: its tissues spread over half
their range. So a histogram tells, without any word of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Belief = Literal["sure", "likely", "unsure"]

OFFSETS = (0.0, 1024.0, 1000.0, 8192.0, 32768.0)
"""What tools add to make Hounsfield units unsigned."""

_AIR = (-1100.0, -900.0)
_BODY = (-200.0, 200.0)
_SOFT = (-20.0, 110.0)
_FAT = (-150.0, -30.0)
# From here on there is tissue: lung and the edges of the body lie below.
_TISSUE = -400.0
# Values outside, such as ringing of a resampled edge, are at most this share.
_RANGE, _STRAY = (-1400.0, 4000.0), 0.02
_LEAST_AIR = 0.005
# Measured on 10 CT and their middles (0.71 to 1.0) and on 58 MR as they are and shifted.
_CONCENTRATED, _ALONE = 0.65, 0.92
# MR scaled by chance so that its tissue lies near 1024 comes to 0.79; CT to 0.89 and more, or to
# 0.74 where much is bone, then with most of the tissue soft.
_SHIFTED, _MOSTLY_SOFT = 0.8, 0.5
# Scaled data may be any image with a dark background: both peaks must be as sharp as in CT.
# Between them lie lung and the edge of the body, which a cut-out MR lacks.
_SHARP, _VALLEY = 0.77, (0.01, 0.15)
# Share of values within 25 of the densest: 0.2 where they are spread evenly over 250.
_FLAT = 0.25
_SOFT_PEAK = 45.0
_BINS = 512


@dataclass(frozen=True)
class Scale:
    """The map from grey values to Hounsfield units: `slope * value + intercept`.

    Args:
        slope: Hounsfield units of one grey value.
        intercept: Hounsfield units of grey value 0.
        belief: How sure.
        reason: What speaks for it.
    """

    slope: float
    intercept: float
    belief: Belief
    reason: str

    @property
    def plain(self) -> bool:
        """True if the grey values are Hounsfield units as they are."""
        return (self.slope, self.intercept) == (1.0, 0.0)

    def grey(self, hounsfield: float) -> float:
        """Grey value of a number of Hounsfield units."""
        return (hounsfield - self.intercept) / self.slope


def find_scale(values: Values) -> Scale | None:
    """The scale of CT values; None if they are none, or the scale cannot be told.

    Args:
        values: (N,) of image alone, without padding.
    """
    for offset in OFFSETS:
        units = values - offset
        if _share(units, *_RANGE) < 1 - _STRAY:
            continue
        belief, reason = _with_air(units, offset != 0)
        if belief is None and offset in (0.0, 1024.0):
            belief, reason = _without_air(units, offset != 0)
        if belief is not None:
            shown = f", shifted by {offset:g}" if offset else ""
            return Scale(1.0, -offset, belief, reason + shown)
    return _by_peaks(values)


def _with_air(units: Values, shifted: bool) -> tuple[Belief | None, str]:
    """How much values look like Hounsfield units of a body in air, and why."""
    tissue = units[units > _TISSUE]
    body = _share(tissue, *_BODY)
    if tissue.size <= 0.02 * units.size or body < _CONCENTRATED:
        return None, ""
    if shifted and body < _SHIFTED and _share(tissue, *_SOFT) < _MOSTLY_SOFT:
        return None, ""
    air, lung, edges = (_share(units, low, low + 150) for low in (-1075, -925, -600))
    # The tails of a difference of two images thin out, with nothing at -1000 of all places.
    if _share(units, *_AIR) < _LEAST_AIR or max(air, lung) < 1.5 * edges:
        return None, ""
    reason = f"air near -1000, {100 * body:.0f} % of the tissue within 200 of water"
    return ("sure" if body > 0.7 else "likely"), reason


def _without_air(units: Values, shifted: bool) -> tuple[Belief | None, str]:
    """The same within a body."""
    body, peak = _share(units, *_BODY), _peak(units)
    dark, soft = _share(units, -1100.0, _FAT[1]), _share(units, *_SOFT)
    brain = soft > 0.9 and units.min() < -100 and units.max() > 300
    if body < _ALONE or not (dark >= 0.002 or brain) or not -130 <= peak <= 100:
        return None, ""
    if _is_difference(units, peak):
        return None, ""
    sharp = _share(units, peak - 25, peak + 25)
    gas = units.min() >= -1100 and 1e-4 < _share(units, -1100, -500) < 0.05
    gas = gas and not -15 < peak < 8
    if sharp < _FLAT and not gas:
        return None, ""
    told = (dark > 0.02 and sharp > 0.28) or gas
    belief: Belief = "likely" if told and not shifted else "unsure"
    return belief, f"{100 * body:.0f} % of the values within 200 of water, most near {peak:.0f}"


def _is_difference(units: Values, peak: float) -> bool:
    """True if many values are near 0 and as many are below it as above."""
    above, below = _share(units, 10, 60), _share(units, -60, -10)
    even = min(above, below) > 0.8 * max(above, below)
    return abs(peak) <= 10 and even and _share(units, -25, 25) > 0.3


def _by_peaks(values: Values) -> Scale | None:
    """The scale by the peaks of air and of soft tissue, for values scaled to another range."""
    if values.size < 1000:
        return None
    air = _lowest_peak(values)
    slopes = [(_SOFT_PEAK + 1000) / (soft - air) for soft in _upper_peaks(values, air)]
    fitting = {slope: _fit((values - air) * slope - 1000) for slope in slopes}
    if not any(fitting.values()):
        return None
    slope = max(fitting, key=lambda one: fitting[one])
    shifted = abs(slope - 1) < 0.04
    slope = 1.0 if shifted else slope
    intercept = float(round(-1000 - air)) if shifted else -1000 - slope * air
    how = f"shifted by {-intercept:g}" if shifted else f"scaled by {1 / slope:.3g}"
    return Scale(slope, intercept, "likely", f"sharp peaks of air and soft tissue as in CT, {how}")


def _fit(units: Values) -> float:
    """How well peaks and valleys lie where CT has them; 0 if they do not."""
    tissue = units[units > _TISSUE]
    if not tissue.size or _share(units, *_RANGE) < 1 - _STRAY:
        return 0.0
    between, body = _share(units[units > -850], -850, -250), _share(tissue, *_BODY)
    fits = (
        _share(units, *_AIR) >= 0.02
        and body >= _SHARP
        and _share(tissue, *_FAT) >= 0.04
        and _share(tissue, 200, 2000) >= 0.003
        and _VALLEY[0] <= between <= _VALLEY[1]
    )
    return body if fits else 0.0


def _lowest_peak(values: Values) -> float:
    """Where the darkest tenth of the range is densest: air."""
    low, high = (float(end) for end in np.percentile(values, (0.05, 99.9)))
    dark = values[values <= low + (high - low) * 0.2]
    return float(np.median(dark)) if dark.size else low


def _upper_peaks(values: Values, air: float) -> Iterator[float]:
    """Densest grey values above air, densest last."""
    high = float(np.percentile(values, 99.9))
    bright = values[(values > air + 0.1 * (high - air)) & (values <= high)]
    if bright.size < 100 or not high > air:
        return
    counts, edges = np.histogram(bright, bins=_bins(bright))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    inner = (smooth[1:-1] >= smooth[:-2]) & (smooth[1:-1] > smooth[2:])
    peaks = np.flatnonzero(inner) + 1
    for place in peaks[np.argsort(smooth[peaks])][-6:]:
        yield float((edges[place] + edges[place + 1]) / 2)


def _bins(values: Values) -> int:
    """Bins no finer than whole numbers where the values are whole."""
    width = float(np.ptp(values))
    whole = bool(np.all(values == np.rint(values)))
    return int(np.clip(width, 8, _BINS)) if whole else _BINS


def _peak(values: Values) -> float:
    """Densest value among tissue, to 10."""
    counts, edges = np.histogram(values, bins=np.arange(_TISSUE - 5, 1000, 10))
    return float(edges[counts.argmax()] + 5)


def _share(values: Values, low: float, high: float) -> float:
    """Share of the values from `low` to `high`; 0 of none."""
    return float(np.mean((values >= low) & (values <= high))) if values.size else 0.0
