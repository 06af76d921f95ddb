"""Dice of the liver asked for by name in CT pictures of patients that nothing was trained on.

    python adapters/pictures/measure_livers.py ../shared/data

The 33 pictures of 2d/liver_ct that its split holds back, each as a picture is read and as the axial
slice that it is (pictures.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pictures import AXIAL, PIXEL, livers, opened

import promptseg as ps
from promptseg.evaluate.metrics import dice

FOUND = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with 2d")
    parser.add_argument("--adapter", help="name or folder; without, that which the words choose")
    chosen = parser.parse_args()
    segmenter = ps.Segmenter.from_pretrained("default", adapter=chosen.adapter)
    for pose, affine in (("picture", np.eye(4)), ("axial slice", AXIAL * [PIXEL, PIXEL, 1, 1])):
        scores = []
        for file in livers(chosen.data, "held_back"):
            image, mask = opened(file, "liver")
            volume = ps.Volume(np.ascontiguousarray(image)[..., None], affine, "CT")
            found = segmenter.segment(volume, [ps.Text("liver")]).data[..., 0] > 0
            scores.append(float(dice(found, mask == 1)))
        print(f"{pose}: n {len(scores)}, Dice {np.mean(scores):.3f}, median "
              f"{np.median(scores):.3f}, found (at least {FOUND}) "
              f"{sum(s >= FOUND for s in scores)}")  # fmt: skip


if __name__ == "__main__":
    main()
