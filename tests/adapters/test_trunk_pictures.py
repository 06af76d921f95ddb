"""adapters/pictures/pictures.py on sets of one small picture each."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "adapters/pictures"
NUMBER = {"kidney_right": 2, "kidney_left": 3, "liver": 5, "pancreas": 12}


@pytest.fixture(scope="module")
def pictures():
    sys.path.insert(0, str(FOLDER))
    try:
        import pictures

        return pictures
    finally:
        sys.path.remove(str(FOLDER))


def written(folder: Path, masks: dict[str, np.ndarray]) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, mask in masks.items():
        Image.fromarray((mask * 10).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{name}.png")


@pytest.fixture
def abdomen() -> np.ndarray:
    """Liver and a kidney at the left of the picture, a kidney at its right, pancreas in front."""
    mask = np.zeros((10, 12), np.uint8)
    mask[2:5, 1:3], mask[7, 2], mask[7, 9], mask[1, 6] = 3, 2, 2, 1
    return mask


def found(pictures, data: Path, group: str) -> dict:
    return {name: (image, labels) for name, image, labels in
            pictures.pictures_of(data, group, NUMBER)}  # fmt: skip


def test_the_right_kidney_is_at_the_left_of_the_picture(pictures, tmp_path, abdomen):
    written(tmp_path / "breadth/curvas_abdomen_ct", dict.fromkeys(("0", "1", "2"), abdomen))
    labels = found(pictures, tmp_path, "curvas")["curvas_picture_0"][1].data[..., 0]
    assert labels[7, 2] == NUMBER["kidney_right"]
    assert labels[7, 9] == NUMBER["kidney_left"]
    assert (labels == NUMBER["liver"]).sum() == 6
    assert labels[1, 6] == NUMBER["pancreas"]


def test_what_names_are_measured_on_stays_out(pictures, tmp_path, abdomen):
    written(tmp_path / "breadth/curvas_abdomen_ct", dict.fromkeys(("0", "1", "2"), abdomen))
    assert set(found(pictures, tmp_path, "curvas")) == {"curvas_picture_0", "curvas_axial_0"}


def test_an_axial_picture_lies_in_the_body_as_radiologists_see_it(pictures, tmp_path, abdomen):
    written(tmp_path / "breadth/curvas_abdomen_ct", dict.fromkeys(("0", "1", "2"), abdomen))
    image, labels = found(pictures, tmp_path, "curvas")["curvas_axial_0"]
    assert nib.aff2axcodes(image.affine)[:2] == ("P", "L")
    right, left = (image.affine @ [*np.argwhere(labels.data == NUMBER[n])[0], 1]
                   for n in ("kidney_right", "kidney_left"))  # fmt: skip
    assert right[0] > left[0]


def test_a_picture_upside_down_is_turned(pictures, tmp_path, abdomen):
    upside_down = np.where(abdomen == 1, 1, 0)[::-1]
    written(tmp_path / "breadth/pancreas_ct", {"0": upside_down})
    labels = found(pictures, tmp_path, "pancreas")["pancreas_picture_0"][1].data[..., 0]
    assert labels[1, 6] == NUMBER["pancreas"]


def test_a_liver_comes_upright(pictures, tmp_path, abdomen):
    liver = np.where(abdomen == 3, 1, 0).astype(np.uint8)
    lying = np.rot90(liver, -1)
    written(tmp_path / "2d/liver_ct", {"a": lying, "b": lying[::-1]})
    (tmp_path / "2d/split.json").write_text(json.dumps({"liver_ct": {"train": ["a.png", "b.png"]}}))
    given = found(pictures, tmp_path, "liver")
    for name in ("a", "b"):
        labels = given[f"liver_picture_{name}"][1].data[..., 0]
        assert np.array_equal(labels == NUMBER["liver"], abdomen == 3)
