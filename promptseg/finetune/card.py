"""README.md of an adapter folder: what it is, from what, how good, under what terms."""

from __future__ import annotations

from pathlib import Path

from promptseg.adapters import Adapter, AdapterInfo
from promptseg.errors import AdapterError
from promptseg.io.atomic import atomic_path

WAYS = {"box_2d": "box, slice by slice", "auto_3d": "no prompt, 3D",
        "view_3d": "box, the coarse 3D view alone"}  # fmt: skip


def card(adapter: Adapter) -> str:
    """Text of the card."""
    info = adapter.info
    shape = f"{info.method}, rank {info.rank}, on {', '.join(info.targets)}"
    shape = "no LoRA" if info.method == "none" else shape
    lines = [
        f"# {adapter.name}",
        "",
        f"Segments {info.organ} ({', '.join(f'{k} {v}' for k, v in info.labels.items())})"
        + (f" in {info.modality}" if info.modality else "")
        + f". An adapter for promptseg's `{info.backbone}`: {shape}; decoder {info.decoder}"
        + ("; with a coarse 3D view of its own." if info.coarse_sha256 else "."),
        "",
        "```",
        f"promptseg segment IMAGE -o OUT.nii.gz --adapter {adapter.name}",
        f"promptseg segment IMAGE -o OUT.nii.gz --adapter {adapter.name} --box i0,j0,k0,i1,j1,k1",
        "```",
        "",
        f"Trained for {info.steps} steps on {_learned_from(info)}; recipe.toml "
        f"repeats it. Licence: {info.licence}.",
        "",
        *_table(adapter),
        f"Base sha256 `{info.base_sha256}`. Training cases: {', '.join(info.training_cases)}.",
        *(
            [f"Unlabelled cases: {', '.join(info.unlabelled_cases)}."]
            if info.unlabelled_cases
            else []
        ),
    ]
    return "\n".join(lines) + "\n"


def _learned_from(info: AdapterInfo) -> str:
    """Cases, what was known of them and the objective."""
    text = f"{len(info.training_cases)} cases"
    if info.annotation == "scribbles":
        text += ", of which only scribbles were known"
    if info.unlabelled_cases:
        text += f" and {len(info.unlabelled_cases)} unlabelled ones"
    return text if info.objective == "supervised" else f"{text} (objective {info.objective})"


def _table(adapter: Adapter) -> list[str]:
    info = adapter.info
    if not info.scores:
        return ["Nothing was measured on cases set aside.", ""]
    rows = [f"Measured on {len(info.validation_cases)} validation cases:", "",
            "| prompt | label | Dice | HD95 mm |", "|---|---|---|---|"]  # fmt: skip
    for way, by_label in info.scores.items():
        for label, scores in by_label.items():
            dice, distance = scores["dice"], scores["hd95_mm"]
            rows.append(f"| {WAYS[way]} | {info.labels[int(label)]} | {_shown(dice, 3)} | "
                        f"{_shown(distance, 1)} |")  # fmt: skip
    return [*rows, ""]


def _shown(measure: dict[str, float | None], digits: int) -> str:
    mean, std = measure["mean"], measure["std"]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}"


def write_card(adapter: Adapter, folder: Path) -> None:
    """Write README.md.

    Raises:
        AdapterError: It cannot be written.
    """
    try:
        with atomic_path(folder / "README.md") as temporary:
            temporary.write_text(card(adapter), encoding="utf-8")
    except OSError as error:
        raise AdapterError(f"{folder}: the card cannot be written: {error.strerror}") from error
