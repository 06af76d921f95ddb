"""The same anatomy in grey levels as other tools write them: Dice of each against the plain file.

python benchmarks/grey_levels.py --data ../shared/data -o grey_levels.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

import promptseg as ps
from promptseg.volume import Volume

Change = Callable[[np.ndarray], np.ndarray]


def padded(value: float) -> Change:
    """The corners outside the round field of view hold `value`."""

    def change(data: np.ndarray) -> np.ndarray:
        rows, cols = np.ogrid[: data.shape[0], : data.shape[1]]
        half = np.array(data.shape[:2]) / 2
        outside = ((rows - half[0]) / half[0]) ** 2 + ((cols - half[1]) / half[1]) ** 2 > 1
        return np.where(outside[..., None], value, data.astype(np.int32))

    return change


def scaled(top: float, low: float, high: float) -> Change:
    """Values from `low` to `high` written as 0 to `top`."""

    def change(data: np.ndarray) -> np.ndarray:
        grey = np.clip((data.astype(np.float64) - low) / (high - low), 0, 1) * top
        return np.rint(grey).astype(np.uint8) if top > 1 else grey.astype(np.float32)

    return change


def resampled(data: np.ndarray) -> np.ndarray:
    """Off by a third of a voxel there and back: no whole numbers, and it rings."""
    there = ndimage.shift(data.astype(np.float32), (0.33, 0.33, 0), order=3, mode="nearest")
    return ndimage.shift(there, (-0.33, -0.33, 0), order=3, mode="nearest")


def metal(share: float, value: float) -> Change:
    """A block of bright metal in the corner."""

    def change(data: np.ndarray) -> np.ndarray:
        changed = data.astype(np.float32)
        side = round((share * data.size) ** (1 / 3))
        changed[:side, :side, :side] = value
        return changed

    return change


CT: dict[str, Change] = {
    "plain": lambda data: data,
    **{f"padding {value}": padded(value) for value in (-2000, -3024, -8192, -32768)},
    "resampled": resampled,
    "resampled, padding -3024": lambda data: padded(-3024)(resampled(data)).astype(np.float32),
    "uint16 HU + 1024": lambda data: np.clip(data + 1024, 0, None).astype(np.uint16),
    "uint16 HU + 8192": lambda data: (data.astype(np.int32) + 8192).astype(np.uint16),
    "window to 0..255": scaled(255, -160, 240),
    "window to 0..1": scaled(1, -160, 240),
    "all to 0..255": scaled(255, -1024, 1600),
    "all to 0..1": scaled(1, -1024, 1600),
    "NaN outside": lambda data: padded(np.nan)(data),
}

MR: dict[str, Change] = {
    "plain": lambda data: data,
    "minus 600": lambda data: data - 600,
    "subtraction": lambda data: np.rint(data - 600 - 300 * (data > 600)).astype(np.int16),
    "real part": lambda data: (
        data * np.where(np.arange(data.shape[0]) % 8 < 4, 1, 1)[:, None, None] - 1000
    ),
    "background -1e6": lambda data: np.where(edge(data), -1e6, data),
    "one per cent of metal": metal(0.01, 30000),
    "two per cent of metal": metal(0.02, 30000),
    "NaN outside": lambda data: np.where(edge(data), np.nan, data),
}


def edge(data: np.ndarray) -> np.ndarray:
    """True in the outer eighth of the first two axes."""
    mask = np.ones(data.shape, bool)
    rows, cols = (side // 8 for side in data.shape[:2])
    mask[rows:-rows, cols:-cols] = False
    return mask


def sphere() -> tuple[Volume, np.ndarray]:
    """An MR-like sphere of 900 in tissue of 400 to 600, with noise."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in (64, 64, 24)), indexing="ij"))
    far = np.sqrt((((grid.T - (30, 34, 12)) * (1, 1, 2)) ** 2).sum(-1)).T
    tissue = 500 + 100 * ndimage.gaussian_filter(rng.normal(size=far.shape), 4) * 20
    data = np.where(far < 14, 900, tissue) + rng.normal(scale=25, size=far.shape)
    return Volume(np.rint(data).astype(np.float32), np.diag([1.0, 1, 2, 1])), far < 14


def scenes(data: Path) -> Iterator[tuple[str, Volume, np.ndarray, dict[str, Change]]]:
    """Name, image, target and changes."""
    volume = ps.read(data / "totalsegmentator" / "ct.nii.gz")
    truth = ps.read(data / "totalsegmentator" / "ct_labels.nii.gz").data == 1
    filled = np.flatnonzero(truth.any((0, 1)))
    cut = np.s_[:, :, max(filled[0] - 4, 0) : filled[-1] + 5]
    yield "CT spleen", Volume(volume.data[cut], volume.affine), truth[cut], CT
    lesion = np.load(next((data / "ct_lesions").glob("*000015*.npz")))
    image, known = (np.moveaxis(lesion[key], 0, 2)[::2, ::2] for key in ("imgs", "gts"))
    affine = np.diag([*(2 * lesion["spacing"][:2]), lesion["spacing"][2], 1])
    hu = np.rint(image / 255.0 * 400 - 160).astype(np.int16)
    hu[image == 0] = -1000
    yield "CT lesion", Volume(hu, affine), known > 0, CT
    yield "MR sphere", *sphere(), MR


def box_around(truth: np.ndarray) -> ps.Box:
    """The target on its largest slice, in a flat box."""
    k = int(truth.sum((0, 1)).argmax())
    found = np.argwhere(truth[:, :, k])
    low, high = found.min(0), found.max(0) + 1
    return ps.Box((*low.tolist(), k), (*high.tolist(), k + 1))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks."""
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--only", default="", help="scenes whose name holds this")
    arguments = parser.parse_args()
    segmenter, found = ps.Segmenter.from_pretrained("default", device="cpu"), {}
    for scene, volume, truth, changes in scenes(arguments.data):
        if arguments.only not in scene:
            continue
        for name, change in changes.items():
            try:
                changed = Volume(change(volume.data), volume.affine)
                result = segmenter.segment(changed, [box_around(truth)])
                value = dice(result.data == 1, truth)
                told = result.report["window"]
            except ps.errors.PromptsegError as error:
                value, told = 0.0, str(error)
            found.setdefault(scene, {})[name] = round(value, 4)
            print(f"{scene:10} {name:28} {value:.3f}  {told}", flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
