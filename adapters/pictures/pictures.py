"""Pictures of the trunk in the small 2D sets, and what is annotated in each.

A picture says nothing of where it lies in the body, and promptseg takes its rows and columns as
they come. The same picture is an axial slice as radiologists look at it, rows to the back, columns
to the patient's left. Where that is so it is given twice, so that one who asks for an organ in a
picture finds it, and volumes of other patients learn from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import promptseg as ps

# As many at the end of each set are kept for weights/measure_names.py (weights/sources.py).
HELD = 2
AXIAL = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
LIVERS = 24
# A body about 350 mm wide fills most of 256 pixels.
PIXEL = 1.5


@dataclass(frozen=True)
class PictureSet:
    """A set of 2D pictures.

    Args:
        folder: Below the data.
        modality: CT or MR.
        organs: By value in its masks.
        held: How many of the last ones stay out.
        axial: True if they are axial slices.
        pixel: About how many mm a pixel of an axial slice is: how large organs are is learned.
        upside_down: True if the back is at the top.
    """

    folder: str
    modality: str
    organs: Mapping[int, str] = field(default_factory=dict)
    held: int = 0
    axial: bool = True
    pixel: float = PIXEL
    upside_down: bool = False


SETS = {
    "curvas": PictureSet("breadth/curvas_abdomen_ct", "CT",
                         {1: "pancreas", 2: "kidney", 3: "liver"}, HELD),
    "chest": PictureSet("breadth/chest_ct", "CT", {1: "lung", 2: "heart", 3: "trachea"}, HELD),
    "gi": PictureSet("breadth/gi_tract_mr", "MR",
                     {1: "small_bowel", 2: "colon", 3: "stomach"}, HELD),
    "hvsmr": PictureSet("breadth/hvsmr2_mr", "MR",
                        {4: "right_atrium", 5: "aorta", 6: "pulmonary_artery",
                         7: "superior_vena_cava", 8: "inferior_vena_cava"}, HELD, axial=False),
    "prostate": PictureSet("breadth/prostate158_mr", "MR",
                           {1: "prostate_central_gland", 2: "prostate_tumor"}, HELD, pixel=0.75),
    "aorta": PictureSet("breadth/aorta_ct", "CT", {1: "aorta"}),
    "pancreas": PictureSet("breadth/pancreas_ct", "CT", {1: "pancreas"}, upside_down=True),
    "chd": PictureSet("breadth/chd_ct", "CT",
                      {4: "right_atrium", 6: "aorta", 7: "pulmonary_artery"}),
    "liver": PictureSet("2d/liver_ct", "CT", {1: "liver"}),
}  # fmt: skip


def pictures_of(
    data: Path, group: str, number: Mapping[str, int]
) -> Iterator[tuple[str, ps.Volume, ps.Volume]]:
    """Name, image and labels of the pictures of one of `SETS`, once or twice.

    Args:
        data: Folder with breadth and 2d.
        group: One of `SETS`.
        number: Label by organ.
    """
    about = SETS[group]
    for file in chosen_files(data, group):
        image, mask = opened(file, group)
        labels = numbered(mask, about.organs, number)
        poses = {
            "picture": np.eye(4),
            **({"axial": AXIAL * [about.pixel, about.pixel, 1, 1]} if about.axial else {}),
        }
        for pose, affine in poses.items():
            both = [ps.Volume(np.ascontiguousarray(plane)[..., None], affine, about.modality)
                    for plane in (image, labels)]  # fmt: skip
            yield f"{group}_{pose}_{file.stem}", both[0], both[1]


def opened(file: Path, group: str) -> tuple[np.ndarray, np.ndarray]:
    """Grey values and mask of a picture, the back at the bottom."""
    image = np.array(Image.open(file).convert("L"))
    mask = np.array(Image.open(file.parent.parent / "masks" / f"{file.stem}.png"))
    if group == "liver":
        return upright(image, mask)
    return (image[::-1], mask[::-1]) if SETS[group].upside_down else (image, mask)


def chosen_files(data: Path, group: str) -> list[Path]:
    """Pictures of a set that may be learned from."""
    if group == "liver":
        return livers(data, "train")[:LIVERS]
    about = SETS[group]
    files = sorted((data / about.folder / "images").iterdir())
    return files[: len(files) - about.held]


def livers(data: Path, part: str) -> list[Path]:
    """Pictures of 2d/liver_ct, of `train` or `held_back`."""
    split = json.loads((data / "2d/split.json").read_text())["liver_ct"]
    return [data / SETS["liver"].folder / "images" / name for name in sorted(split[part])]


def upright(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture of 2d/liver_ct, whose back is at the left, with the liver at the left."""
    image, mask = np.rot90(image), np.rot90(mask)
    if np.nonzero(mask)[1].mean() > mask.shape[1] / 2:
        return image[:, ::-1], mask[:, ::-1]
    return image, mask


def numbered(mask: np.ndarray, organs: Mapping[int, str], number: Mapping[str, int]) -> np.ndarray:
    """Labels of `number`; the patient's right kidney is the one at the left of the picture."""
    labels = np.zeros(mask.shape, np.uint8)
    left = np.arange(mask.shape[1]) < mask.shape[1] / 2
    for value, organ in organs.items():
        if organ == "kidney":
            labels[(mask == value) & left] = number["kidney_right"]
            labels[(mask == value) & ~left] = number["kidney_left"]
        else:
            labels[mask == value] = number[organ]
    return labels
