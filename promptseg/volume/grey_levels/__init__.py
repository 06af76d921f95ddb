"""What the grey values of an image are: their modality, their scale, and what is no image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promptseg.volume.grey_levels.hounsfield import Scale, find_scale

Modality = Literal["CT", "MR", "other"]
Belief = Literal["told", "sure", "likely", "unsure"]
Array = NDArray[np.generic]

SAMPLE = 400_000
# A spike at the lowest value is padding if it lies this many times the image's range below it.
_PADDING_GAP = 1.0
# MR of 8 bits seldom reaches its highest value, windowed CT does in bone: 0.5 % and more.
_LEAST_CUT = 0.002
_BELOW_AIR = -1450.0
# Bright values are no image if they lie this many times the middle 90 % of the range above it; of
# 68 CT and MR the brightest half per cent lies at most 1.7 times above.
_METAL_GAP = 4.0
# Neighbours in noise do not resemble each other: where nothing else remains, the bright part is
# what the image shows.
_LEAST_LIKENESS = 0.1


@dataclass(frozen=True)
class GreyLevels:
    """What an image's grey values are.

    Args:
        modality: What it was taken for.
        belief: How sure: `told` by the file or the user, `sure`, `likely` or `unsure`.
        reason: What speaks for it.
        scale: Of CT: from grey values to Hounsfield units; None if it cannot be told.
        low: Values below are padding.
        high: Values above are metal or padding.
        padded: Share of the voxels below `low`.
        metal: Share of the voxels above `high`.
        shown: True for values made to be looked at, 0 to 255 or 0 to 1.
        windowed: True if, in addition, both ends were cut off, as a window does.
    """

    modality: Modality
    belief: Belief
    reason: str
    scale: Scale | None = None
    low: float = -np.inf
    high: float = np.inf
    padded: float = 0.0
    metal: float = 0.0
    shown: bool = False
    windowed: bool = False

    def __str__(self) -> str:
        if self.belief == "told":
            return f"{self.modality} (sure, {self.reason})"
        doubt = {"sure": "quite sure", "likely": "likely", "unsure": "not sure"}[self.belief]
        return f"{self.modality} (guessed, {doubt}: {self.reason})"

    @property
    def notes(self) -> list[str]:
        """What a user should know about these values, each a sentence."""
        found = []
        if self.padded > 0.001:
            found.append(f"{_percent(self.padded)} of the voxels are padding (below {self.low:g}): "
                         "left out of the window")  # fmt: skip
        if self.metal > 0:
            found.append(f"{_percent(self.metal)} of the voxels are far brighter than the rest "
                         f"(above {self.high:g}): left out of the window")  # fmt: skip
        return found


def assess(data: Array, told: Modality | None = None, by: str = "said so") -> GreyLevels:
    """Say what grey values are.

    Several things speak together: the peaks of air, fat and soft tissue, their distance and
    sharpness, the range, and whether the numbers are whole.

    Args:
        data: (I, J, K) finite values.
        told: Modality that the file or the user says; None guesses.
        by: Who says so, in words.
    """
    sample = _sampled(data)
    low, image = _without_padding(sample)
    # What looks like padding may be air without noise, which then tells the scale.
    scale = find_scale(image) or (find_scale(sample) if low > -np.inf else None)
    if told is None:
        modality, belief, reason = _guess(image, scale)
    else:
        modality, belief, reason = told, "told", by
    high = np.inf if modality == "CT" else _brightest(data, image)
    return GreyLevels(
        modality,
        belief,
        reason,
        scale if modality == "CT" else None,
        low,
        high,
        float(np.mean(sample < low)),
        float(np.mean(sample > high)),
        looks_shown(image),
        told != "MR" and looks_shown(image) and _cut_off(image),
    )


def _guess(image: NDArray[np.float64], scale: Scale | None) -> tuple[Modality, Belief, str]:
    if scale is not None:
        return "CT", scale.belief, scale.reason
    if looks_shown(image):
        return "MR", "unsure", "values of a picture, which CT and MR share"
    lowest, highest = float(image.min()), float(image.max())
    spread = f"no peaks of air and soft tissue as in CT, values from {lowest:g} to {highest:g}"
    if lowest < 0 and float(np.mean(np.abs(image) <= 200)) > 0.9:
        return "MR", "unsure", spread
    return "MR", "likely", spread


def looks_shown(image: NDArray[np.float64]) -> bool:
    """True for 0 to 255 or 0 to 1: values made to be looked at, no longer of a scanner."""
    lowest, highest = float(image.min()), float(image.max())
    whole = bool(np.all(image == np.rint(image)))
    return lowest >= 0 and (highest <= 1 or (whole and highest <= 255))


def _cut_off(image: NDArray[np.float64]) -> bool:
    """True if many values are exactly 0, and more are exactly the highest than just below it."""
    highest = float(image.max())
    if highest not in (1.0, 255.0):
        return False
    black, white = float(np.mean(image == 0)), float(np.mean(image == highest))
    below = float(np.mean((image > 0.9 * highest) & (image < highest))) / 25
    return min(black, white) >= _LEAST_CUT and white > 3 * below


def _sampled(data: Array) -> NDArray[np.float64]:
    """Values of voxels drawn by chance, the same ones each time; all of a small image.

    Which they are depends on the axes, not on how they lie in memory.
    """
    if data.size <= SAMPLE:
        return data.ravel(order="K").astype(np.float64)
    drawn = np.random.default_rng(0).integers(0, data.size, SAMPLE)
    return data[np.unravel_index(drawn, data.shape, order="F")].astype(np.float64)


def _without_padding(sample: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The lowest value of the image, and the values from there on.

    Padding is one value, or with ringing nearly one, that many voxels hold and that lies far
    below all others.
    """
    low = -np.inf
    for spike, floor in _spikes(sample):
        rest = sample[sample > floor]
        if rest.size < max(64, 0.001 * sample.size):
            break
        bottom, top = np.percentile(rest, (0.5, 99.5))
        below_air = _below_air(spike, rest)
        gap = bottom - spike
        if not below_air and (gap < _PADDING_GAP * (top - bottom) or not top > bottom):
            break
        # What interpolation mixed of padding and air is no image either.
        floor = max(floor, _BELOW_AIR) if below_air else floor
        low = float(floor + 1e-9 * max(1.0, abs(floor)))
    kept = sample[sample > low]
    return low, kept if kept.size else sample


def _spikes(sample: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """The one to three lowest spikes and where they end, each above the last."""
    rest = sample
    for _ in range(3):
        lowest, most = (float(end) for end in np.percentile(rest, (0.05, 99.5)))
        near = 1e-3 * (most - lowest)
        share = float(np.mean(rest <= lowest + near))
        if share < 2e-3:
            return
        # Between padding and image lie the few voxels that interpolation mixed.
        above = rest[rest > lowest + near]
        if not above.size:
            return
        start = float(np.percentile(above, 0.5))
        yield lowest, (lowest + near + start) / 2 if start - lowest > 4 * near else lowest + near
        rest = above


def _below_air(spike: float, rest: NDArray[np.float64]) -> bool:
    """True for what no CT measures, with air above it."""
    return spike < _BELOW_AIR and float(np.mean((rest > -1100) & (rest < -900))) > 0.002


def _brightest(data: Array, image: NDArray[np.float64]) -> float:
    """The highest value of the image; infinite unless some voxels are far brighter than it."""
    bottom, top, end = np.percentile(_foreground(image), (5, 95, 99.5))
    fence = float(top + _METAL_GAP * max(top - bottom, 0.0))
    if not end > fence > 0 or _likeness(data, fence) < _LEAST_LIKENESS:
        return np.inf
    return fence


def _foreground(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values other than 0, which is the usual background of MR."""
    kept = image[image != 0]
    return kept if kept.size else image


def _likeness(data: Array, fence: float) -> float:
    """Correlation of neighbours below the fence, along the axis where it is largest."""
    rng, found = np.random.default_rng(1), [0.0]
    for axis in range(data.ndim):
        if data.shape[axis] < 2:
            continue
        at = [rng.integers(0, side - (n == axis), 50_000) for n, side in enumerate(data.shape)]
        here = data[tuple(at)].astype(np.float64)
        at[axis] = at[axis] + 1
        there = data[tuple(at)].astype(np.float64)
        kept = (here <= fence) & (there <= fence) & (here != 0) & (there != 0)
        if kept.sum() > 100 and here[kept].std() > 0 and there[kept].std() > 0:
            found.append(float(np.corrcoef(here[kept], there[kept])[0, 1]))
    return max(found)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
