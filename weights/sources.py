"""Every labelled image that training the default model may read, and what is held back.

Volumes are brought to the orientation in which networks see slices (closest RAS), so that left
and right mean the same in all of them. Class names are those of the vocabulary where it has them.
left_atrium and medscribble are never read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import nibabel
import numpy as np

from pretraining.named import NamedCase
from promptseg.datasets.breadth import held_sets, read_manifest
from promptseg.text.vocabulary import vocabulary

MEDSCRIBBLE_ACDC = ("patient004", "patient017", "patient018", "patient050", "patient056")
TUMOUR, CORE = (1, 2, 3, 4), (1, 3, 4)
HARDER_HEART = ((2,), (3,), (1,), (3,))
HEART = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
# Two images of each are for measuring names; the rest teach them.
NAMED_SETS = ("curvas_abdomen_ct", "chest_ct", "gi_tract_mr", "hvsmr2_mr", "prostate158_mr")
NAMED_HELD = 2
# Parts of one structure, which is what a box around it means; the first of each has the name.
GLIOMA = (((1, 2, 3), "brain tumor"), ((1, 3), ""))
DISC = (((1, 2), "optic disc"),)
WHOLES: dict[str, tuple[tuple[tuple[int, ...], str], ...]] = {
    "brats2023_mr": GLIOMA, "fets_t2_mr": GLIOMA, "utsw_glioma_mr": GLIOMA,
    "stroke_cpaisd_ct": (((1, 2), ""),),
    "cobra_hippocampus_mr": (((1, 2, 3, 4), "hippocampus"),),
    "hisub25_mr": (((1, 2), ""),),
    "drishti_fundus": DISC, "smdg_fundus": DISC,
}  # fmt: skip
HELD_PATIENTS = {
    "chaos_mr": ("chaos_33", "chaos_36"),
    "mscmr_bssfp": ("mscmr_13", "mscmr_16"),
    "mscmr_lge": ("mscmr_16", "mscmr_28"),
    "thalamus_atlas": ("mni",),
}
SIDES = {"L": "left", "R": "right", "LH": "left", "RH": "right", "Left": "left", "Right": "right"}


def concept_name(words: str, body: str = "") -> str:
    """The vocabulary's name of a class, or its own words with the part of the body."""
    head, _, rest = words.replace("_", " ").replace("-", " ").partition(" ")
    plain = f"{SIDES[head]} {rest}" if head in SIDES and rest else words.replace("_", " ").strip()
    for side in ("left", "right"):
        if plain.endswith(f" {side}"):
            plain = f"{side} {plain.removesuffix(f' {side}')}"
    found = vocabulary().find(plain)
    general = found is not None and found.name in ("tumor", "polyp")
    if found is not None and not general:
        return found.name
    return f"{body} {plain}".strip().lower() if body and body not in plain else plain.lower()


def canonical(image: nibabel.spatialimages.SpatialImage) -> nibabel.spatialimages.SpatialImage:
    """The same image, its axes flipped and swapped to the closest RAS."""
    return nibabel.as_closest_canonical(image)


def compact(data: np.ndarray) -> np.ndarray:
    """8-bit data stays, the rest becomes 16-bit."""
    return data if data.dtype == np.uint8 else np.clip(data, -2000, 30000).astype(np.int16)


def volume_case(
    group: str,
    image: Path,
    label: Path,
    modality: str,
    axes: tuple[int, ...] | None = None,
    wholes: tuple[tuple[int, ...], ...] = (),
    **named: object,
) -> NamedCase:
    """A volume with its labels; None for the axes takes those with slices thin enough."""
    read = canonical(nibabel.load(image))
    data = np.asanyarray(read.dataobj)
    spacing = tuple(float(z) for z in read.header.get_zooms()[:3])
    labels = np.asarray(canonical(nibabel.load(label)).dataobj).astype(np.uint8)
    if axes is None:
        # A slice along a thick axis is a strip of few rows: nobody draws on it.
        thick = int(np.argmax(spacing))
        axes = (thick,) if max(spacing) > 2.5 * min(spacing) else (0, 1, 2)
    return NamedCase(
        image.name.removesuffix(".nii.gz"), group, compact(data), labels, spacing, modality, axes,
        wholes=wholes, **named,
    )  # fmt: skip


def acdc_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    for image in sorted((root / "acdc/images").glob("*.nii.gz")):
        held = 71 <= int(image.name[7:10]) <= 80
        if not image.name.startswith(MEDSCRIBBLE_ACDC):
            label = root / "acdc/labels" / image.name
            yield (
                volume_case(
                    "acdc", image, label, "MR", None, HARDER_HEART, names=HEART, body="heart"
                ),
                held,
            )


def hippocampus_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    names = {1: "anterior hippocampus", 2: "posterior hippocampus"}
    for n, image in enumerate(sorted((root / "hippocampus/images").glob("*.nii.gz"))):
        label = root / "hippocampus/labels" / image.name
        case = volume_case("hippocampus", image, label, "MR", names=names, body="brain",
                           wholes=((1, 2),), groups={(1, 2): "hippocampus"})  # fmt: skip
        yield case, n >= 160


def organ_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    total = root / "totalsegmentator"
    tables = json.loads((total / "labels.json").read_text())
    for stem, modality in (("ct", "CT"), ("ct_small", "CT"), ("mr_small", "MR")):
        known = {int(k): concept_name(v) for k, v in tables[modality.lower()].items()}
        # The left atrium stays an organ that the model was never told of.
        names = {k: v for k, v in known.items() if "atri" not in v}
        labels = total / f"{stem}_labels.nii.gz"
        case = volume_case("totalsegmentator", total / f"{stem}.nii.gz", labels, modality,
                           names=names, body="chest/abdomen")  # fmt: skip
        yield case, False


def tumour_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    names = {1: "tumor necrosis", 2: "tumor edema", 4: "enhancing tumor"}
    for patient in sorted((root / "brats").iterdir()):
        for name, wholes in (("flair", (TUMOUR,)), ("t1c", (TUMOUR, CORE))):
            paths = patient / f"{name}.nii.gz", patient / "labels.nii.gz"
            groups = {TUMOUR: "brain tumor"}
            case = volume_case("brats", *paths, "MR", None, wholes, names=names, groups=groups,
                               body="brain")  # fmt: skip
            yield case, "pat0005" in patient.name
    for patient in sorted((root / "sarcoma").glob("STS_00[1-5]*")):
        for name, modality in (("ct", "CT"), ("mr_t1", "MR")):
            paths = patient / f"{name}.nii.gz", patient / f"{name}_gtv.nii.gz"
            case = volume_case("sarcoma", *paths, modality, names={1: "soft tissue sarcoma"},
                               body="limb")  # fmt: skip
            yield case, "005" in patient.name


def cord_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    cord = root / "spinal_cord"
    for image, label, name, held in (
        ("t1/t1w", "t1/t1w_seg-manual", "spinal cord", False),
        ("t2s/t2s", "t2s/t2s_gmseg_manual", "spinal cord gray matter", False),
        ("t2s/t2s", "t2s/t2s_seg", "spinal cord", False),
        ("t2/t2", "t2/t2_seg-manual", "spinal cord", True),
    ):
        paths = cord / f"{image}.nii.gz", cord / f"{label}.nii.gz"
        yield (
            volume_case("spinal_cord", *paths, "MR", names={1: name}, body="spine"),
            held,
        )


def lesion_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    for n, path in enumerate(sorted((root / "ct_lesions").glob("*.npz"))):
        with np.load(path) as packed:
            image, label = packed["imgs"], packed["gts"].astype(np.uint8)
            spacing = tuple(float(s) for s in packed["spacing"][::-1])
        yield NamedCase(path.stem, "ct_lesions", image, label, spacing, "MR", (0,)), n == 2


def nrrd_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    import SimpleITK

    for image, label in (
        ("brain1_image", "brain1_label"),
        ("prostate_phantom_subvolume", "prostate_phantom_subvolume-label"),
    ):
        read = SimpleITK.ReadImage(str(root / "nrrd" / f"{image}.nrrd"))
        data = SimpleITK.GetArrayFromImage(read).astype(np.float32)
        truth = SimpleITK.ReadImage(str(root / "nrrd" / f"{label}.nrrd"))
        labels = SimpleITK.GetArrayFromImage(truth).astype(np.uint8)
        spacing = tuple(read.GetSpacing()[::-1])
        data = compact(data - data.min())
        yield NamedCase(image, "nrrd", data, labels, spacing, "MR", (0, 1, 2)), False


def flat_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    """The six sets of ../shared/data/2d; split.json says what is held back."""
    called = {
        "chest_xray": ("lung", "chest x-ray"), "covid_ct": ("lung infection", "chest"),
        "fetal_head_us": ("fetal head", "fetus"), "glioma_flair": ("brain tumor", "brain"),
        "liver_ct": ("liver", "abdomen"), "lung_nodule_ct": ("lung nodule", "chest"),
    }  # fmt: skip
    for folder, split in json.loads((root / "2d/split.json").read_text()).items():
        name, body = called[folder]
        for part in ("train", "held_back"):
            for file in split[part]:
                case = flat_case(
                    folder, root / "2d" / folder / "images" / file, {1: name}, body, False
                )
                yield case, part == "held_back"


def flat_case(
    group: str, image: Path, names: dict[int, str], body: str, instances: bool, **parts: object
) -> NamedCase:
    """A 2D picture, in grey, and the PNG of its labels beside it."""
    grey = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
    mask = cv2.imread(
        str(image.parent.parent / "masks" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED
    )
    labels = np.ascontiguousarray(mask[..., None].astype(np.uint8))
    return NamedCase(image.stem, group, np.ascontiguousarray(grey[..., None]), labels,
                     modality="2D", instances=instances, names=names, body=body,
                     sided=False, **parts)  # fmt: skip


def breadth_cases(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    manifest = read_manifest(root)
    held = held_sets(manifest)
    for group, about in manifest.items():
        names = {int(k): concept_name(v, about["body"]) for k, v in about["classes"].items()}
        wholes = WHOLES.get(group, ())
        groups = {labels: name for labels, name in wholes if name}
        # The disc without its cup is a ring that nobody calls a disc.
        names = {k: name for k, name in names.items() if name not in groups.values()}
        apart = about["group"] not in ("CT", "MR", "US")
        files = sorted((root / "breadth" / group / "images").iterdir())
        for n, file in enumerate(files):
            last = group in NAMED_SETS and n >= len(files) - NAMED_HELD
            case = flat_case(group, file, names, about["body"], apart, groups=groups,
                             wholes=tuple(labels for labels, _ in wholes))  # fmt: skip
            yield case, group in held or last


def breadth_volumes(root: Path) -> Iterator[tuple[NamedCase, bool]]:
    manifest = json.loads((root / "breadth3d/manifest.json").read_text())
    for group, about in manifest.items():
        if group == "mscmr_lge_scribbles":
            continue
        classes = {k: v for k, v in about["classes"].items() if k.isdigit()}
        names = {int(k): concept_name(v, "") for k, v in classes.items()}
        for image in sorted((root / "breadth3d" / group / "images").glob("*.nii.gz")):
            label = root / "breadth3d" / group / "labels" / image.name
            modality = "CT" if "HU" in about["modality"] else "MR"
            case = volume_case(group, image, label, modality, names=names, body=about["body"])
            held = HELD_PATIENTS.get(group, ())
            yield case, image.name.removesuffix(".nii.gz") in held


SOURCES = (
    acdc_cases, hippocampus_cases, organ_cases, tumour_cases, cord_cases, lesion_cases,
    nrrd_cases, flat_cases, breadth_cases, breadth_volumes,
)  # fmt: skip


def load_cases(root: Path, held_back: bool) -> list[NamedCase]:
    """Training cases, or those held back for measuring."""
    return [case for source in SOURCES for case, held in source(root) if held == held_back]


def named_concepts(cases: list[NamedCase]) -> list[str]:
    """Concepts that some label of some case is called by, sorted."""
    found: set[str] = set()
    for case in cases:
        present = {label for axis in case.extents.values() for label in axis}
        found |= {name for label, name in case.names.items() if label in present}
        found |= {name for labels, name in case.groups.items() if present & set(labels)}
    return sorted(found)
