r"""Bring volumes and pictures of the trunk into the labels that the recipe trains on.

    python weights/checkpoints/pictures/prepare.py ../shared/data runs/pictures_data
    PROMPTSEG_PICTURES=runs/pictures_data promptseg finetune \
        weights/checkpoints/pictures/recipe.toml -o ...

The CT and the MR of `totalsegmentator` number their organs differently. In `chaos_mr` four organs
are annotated, in each set of pictures a few others (`pictures.py`). What weights/measure_names.py
measures on stays out: two patients of chaos_mr, two pictures of each of five sets. As a case is
drawn as often as any other, volumes are there several times. With `--without ct`, `mr`, `dicom`,
`chaos` or `pictures` a volume or all of a kind is left out, to measure on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from pictures import SETS, pictures_of

import promptseg as ps

# What each label is made of in the tables of `totalsegmentator`; none where only pictures have it.
ORGANS: dict[str, tuple[str, ...]] = {
    "spleen": ("spleen",),
    "kidney_right": ("kidney_right",),
    "kidney_left": ("kidney_left",),
    "gallbladder": ("gallbladder",),
    "liver": ("liver",),
    "stomach": ("stomach",),
    "aorta": ("aorta",),
    "inferior_vena_cava": ("inferior_vena_cava",),
    "spinal_cord": ("spinal_cord",),
    "autochthon_left": ("autochthon_left",),
    "autochthon_right": ("autochthon_right",),
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
SOURCES = {
    "ct": ("ct.nii.gz", "ct_labels.nii.gz", "ct"),
    "mr": ("mr_small.nii.gz", "mr_small_labels.nii.gz", "mr"),
    "dicom": ("ct_dicom", "ct_dicom_labels.nii.gz", "ct"),
}
CHAOS = ("chaos_01", "chaos_03", "chaos_08", "chaos_13", "chaos_19", "chaos_21")
CHAOS_ORGANS = ("liver", "kidney_right", "kidney_left", "spleen")


def oriented(volume: ps.Volume, axes: str) -> ps.Volume:
    """The same volume with its voxels stored along other axes."""
    start = nib.orientations.io_orientation(volume.affine)
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(tuple(axes)))
    data = nib.orientations.apply_orientation(volume.data, turn)
    step = nib.orientations.inv_ornt_aff(turn, volume.shape)
    return replace(volume, data=np.ascontiguousarray(data), affine=volume.affine @ step)


def read_series(folder: Path) -> ps.Volume:
    """A folder of DICOM files of one CT series; needs SimpleITK."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    turn = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = affine @ np.block([[turn, np.array(image.GetOrigin())[:, None]], [np.eye(4)[3:]]])
    data = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return ps.Volume(np.ascontiguousarray(data), affine, "CT")


def source_of(data: Path, name: str) -> tuple[ps.Volume, ps.Volume]:
    """Image as its file lies, and labels of `NUMBER`, of one of `SOURCES`.

    Args:
        data: Folder totalsegmentator.
        name: One of `SOURCES`.

    Raises:
        SystemExit: Image and labels are not on one grid.
    """
    image_file, label_file, modality = SOURCES[name]
    source = data / image_file
    image = read_series(source) if source.is_dir() else ps.read(source)
    known = oriented(ps.read(data / label_file), "".join(nib.aff2axcodes(image.affine)))
    if image.shape != known.shape or not np.allclose(image.affine, known.affine, atol=0.1):
        raise SystemExit(f"{source} and {label_file} are not on one grid")
    names = json.loads((data / "labels.json").read_text())
    made_of = {part: NUMBER[organ] for organ, parts in ORGANS.items() for part in parts}
    labels = np.zeros(known.shape, np.uint8)
    for value, part in names[modality].items():
        labels[known.data == int(value)] = made_of.get(part, 0)
    return image, replace(known, data=labels)


def chaos_of(data: Path, name: str) -> tuple[ps.Volume, ps.Volume]:
    """Image and labels of a patient of `chaos_mr`; organs not in `CHAOS_ORGANS` are unknown.

    Args:
        data: Folder chaos_mr.
        name: One of `CHAOS`.
    """
    image, known = (ps.read(data / part / f"{name}.nii.gz") for part in ("images", "labels"))
    labels = np.zeros(known.shape, np.uint8)
    for n, organ in enumerate(CHAOS_ORGANS, start=1):
        labels[known.data == n] = NUMBER[organ]
    return replace(image, modality="MR"), replace(known, data=labels)


def cases_of(data: Path, without: Sequence[str]) -> Iterator[tuple[str, int, ps.Volume, ps.Volume]]:
    """Name, how often it is to be there, image and labels of every case."""
    for name in SOURCES:
        if name not in without:
            yield name, COPIES, *source_of(data / "totalsegmentator", name)
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
