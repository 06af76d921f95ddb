r"""Bring volumes and pictures of the trunk into the labels that the recipe trains on.

    python adapters/pictures/gather.py ../shared/data runs/pictures_data
    PROMPTSEG_PICTURES=runs/pictures_data promptseg finetune \
        adapters/pictures/recipe.toml -o ...

The CT and the MR of `totalsegmentator` number their organs differently. In `chaos_mr` four organs
are annotated, in each set of pictures a few others (`pictures.py`). What weights/measure_names.py
measures on stays out: two patients of chaos_mr, two pictures of each of five sets. As a case is
drawn as often as any other, volumes are there several times. With `--without ct`, `mr`, `dicom`,
`chaos` or `pictures` a volume or all of a kind is left out, to measure on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pictures import SETS, pictures_of

import promptseg as ps

sys.path.append(str(Path(__file__).resolve().parents[1] / "anatomy"))
from prepare import CHAOS, SOURCES, chaos_of, source_of
from prepare import ORGANS as ABDOMEN

# Those of adapters/anatomy first, under the same numbers; none where only pictures have it.
ORGANS: dict[str, tuple[str, ...]] = {
    **ABDOMEN,
    "pancreas": ("pancreas",),
    "lung": ("lung_left", "lung_right", "lung_upper_lobe_left", "lung_lower_lobe_left",
             "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "heart": ("heart", "atrial_appendage_left"),
    "trachea": ("trachea",),
    "small_bowel": ("small_bowel",),
    "colon": ("colon",),
    "prostate_central_gland": (),
    "prostate_tumor": (),
    "right_atrium": (),
    "pulmonary_artery": (),
    "superior_vena_cava": ("superior_vena_cava",),
}  # fmt: skip
NUMBER = {organ: n for n, organ in enumerate(ORGANS, start=1)}
COPIES = 14


def cases_of(data: Path, without: Sequence[str]) -> Iterator[tuple[str, int, ps.Volume, ps.Volume]]:
    """Name, how often it is to be there, image and labels of every case."""
    for name in SOURCES:
        if name not in without:
            yield name, COPIES, *source_of(data / "totalsegmentator", name, ORGANS)
    for name in CHAOS if "chaos" not in without else ():
        yield name, COPIES, *chaos_of(data / "breadth3d/chaos_mr", name)
    for group in SETS if "pictures" not in without else ():
        for name, image, labels in pictures_of(data, group, NUMBER):
            yield name, 1, image, labels


def main(arguments: Sequence[str] | None = None) -> None:
    """Write images and labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with totalsegmentator, breadth, 2d, ...")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--without", choices=[*SOURCES, "chaos", "pictures"], action="append", default=[]
    )
    options = parser.parse_args(arguments)
    for folder in ("images", "labels"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    for name, count, image, labels in cases_of(options.data, options.without):
        for folder, volume in (("images", image), ("labels", labels)):
            first, *others = [options.out / folder / f"{name}_{n}.nii.gz" for n in range(count)]
            ps.write(volume, first)
            for other in others:
                other.unlink(missing_ok=True)
                os.link(first, other)
        present = [organ for organ, n in NUMBER.items() if (labels.data == n).any()]
        print(name, image.shape, image.modality, *present)


if __name__ == "__main__":
    main(sys.argv[1:])
