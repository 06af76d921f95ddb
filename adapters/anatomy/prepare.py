"""Bring the volumes of `totalsegmentator` into the one set of labels that the recipe trains on.

    python adapters/anatomy/prepare.py ../shared/data/totalsegmentator runs/anatomy_data
    PROMPTSEG_ANATOMY=runs/anatomy_data promptseg finetune adapters/anatomy/recipe.toml -o ...

The CT and the MR number their organs differently, and come in different orientations: every
volume is written in three, so that the adapter does not learn the way one file lay. With
`--without ct`, `mr` or `dicom` a volume is left out, to be evaluated on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

import promptseg as ps

ORGANS = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "aorta",
    "inferior_vena_cava", "spinal_cord", "autochthon_left", "autochthon_right",
)  # fmt: skip
SOURCES = {
    "ct": ("ct.nii.gz", "ct_labels.nii.gz", "ct"),
    "mr": ("mr_small.nii.gz", "mr_small_labels.nii.gz", "mr"),
    "dicom": ("ct_dicom", "ct_dicom_labels.nii.gz", "ct"),
}
ORIENTATIONS = ("RAS", "LPS", "LAS")


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Write images and labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder totalsegmentator")
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", choices=SOURCES, action="append", default=[])
    parser.add_argument("--only", choices=SOURCES, help="one volume, as it lies, to evaluate on")
    options = parser.parse_args(arguments)
    names = json.loads((options.data / "labels.json").read_text())
    for folder in ("images", "labels"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    chosen = [options.only] if options.only else [n for n in SOURCES if n not in options.without]
    for name in chosen:
        image_file, label_file, modality = SOURCES[name]
        source, known = options.data / image_file, ps.read(options.data / label_file)
        image = read_series(source) if source.is_dir() else ps.read(source)
        image = oriented(image, "".join(nib.aff2axcodes(known.affine)))
        if image.shape != known.shape or not np.allclose(image.affine, known.affine, atol=0.1):
            raise SystemExit(f"{source} and {label_file} are not on one grid")
        number = {organ: int(label) for label, organ in names[modality].items()}
        labels = np.zeros(known.shape, np.uint8)
        for n, organ in enumerate(ORGANS, start=1):
            labels[known.data == number[organ]] = n
        both = image, replace(known, data=labels)
        for axes in (None,) if options.only else ORIENTATIONS:
            target = f"{name}_{(axes or 'native').lower()}.nii.gz"
            for folder, volume in zip(("images", "labels"), both, strict=True):
                turned = volume if axes is None else oriented(volume, axes)
                ps.write(turned, options.out / folder / target)
        print(name, image.shape, image.modality, [int((labels == n + 1).sum())
                                                  for n in range(len(ORGANS))])  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
