"""Bring the volumes of `totalsegmentator` and `chaos_mr` into the labels that the recipe trains on.

    python adapters/anatomy/prepare.py ../shared/data runs/anatomy_data
    PROMPTSEG_ANATOMY=runs/anatomy_data promptseg finetune adapters/anatomy/recipe.toml -o ...

The CT and the MR of `totalsegmentator` number their organs differently. In `chaos_mr` four organs
are annotated, and two patients stay out of it (weights/sources.py), for weights/measure_names.py.
With `--without ct`, `mr`, `dicom` or `chaos` a volume or set is left out, to measure on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

import promptseg as ps

NAMES = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "aorta",
    "inferior_vena_cava", "spinal_cord", "autochthon_left", "autochthon_right",
)  # fmt: skip
# What each label is made of in the tables of `totalsegmentator`.
ORGANS: dict[str, tuple[str, ...]] = {name: (name,) for name in NAMES}
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


def source_of(
    data: Path, name: str, organs: Mapping[str, Sequence[str]] = ORGANS
) -> tuple[ps.Volume, ps.Volume]:
    """Image as its file lies, and labels from 1 in the order of the organs, of one of `SOURCES`.

    Args:
        data: Folder totalsegmentator.
        name: One of `SOURCES`.
        organs: What each label is made of.

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
    made_of = {part: n for n, parts in enumerate(organs.values(), start=1) for part in parts}
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
        labels[known.data == n] = NAMES.index(organ) + 1
    return replace(image, modality="MR"), replace(known, data=labels)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write images and labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with totalsegmentator and breadth3d")
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", choices=[*SOURCES, "chaos"], action="append", default=[])
    options = parser.parse_args(arguments)
    for folder in ("images", "labels"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    found = {n: source_of(options.data / "totalsegmentator", n)
             for n in SOURCES if n not in options.without}  # fmt: skip
    if "chaos" not in options.without:
        found |= {n: chaos_of(options.data / "breadth3d/chaos_mr", n) for n in CHAOS}
    for name, both in found.items():
        for folder, volume in zip(("images", "labels"), both, strict=True):
            ps.write(volume, options.out / folder / f"{name}.nii.gz")
        image, labels = both
        counts = [int((labels.data == n + 1).sum()) for n in range(len(ORGANS))]
        print(name, image.shape, image.modality, counts)


if __name__ == "__main__":
    main(sys.argv[1:])
