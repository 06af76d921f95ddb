"""The quality report: one page that holds everything, in English or Chinese, or its JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import Prompt, PromptSet
from promptseg.report.checks import Check, Finding, check
from promptseg.report.measurements import measure
from promptseg.report.pictures import Drawing, colour_of, curve_svg
from promptseg.report.texts import labels, prompt_rows
from promptseg.volume import Segmentation, Volume

_LETTERS = "ijk"


@dataclass(frozen=True)
class Review:
    """A segmentation measured and checked.

    Args:
        volume: The image.
        result: The labels.
        prompts: As the user gave them.
        axis: Along which slices were compared.
        measured: Of `measure`.
        checks: By target.
    """

    volume: Volume
    result: Segmentation
    prompts: PromptSet
    axis: int
    measured: Mapping[str, Mapping[str, Any]]
    checks: Mapping[int, Check]

    @property
    def findings(self) -> list[Finding]:
        """Everything that deserves a look."""
        return [finding for one in self.checks.values() for finding in one.findings]

    @property
    def flagged(self) -> list[int]:
        """Slices to look at, in order."""
        return sorted({f.slice for f in self.findings if f.slice is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: `axis`, `flagged_slices` and what was found by target."""
        found = {str(target): one.to_dict() for target, one in self.checks.items()}
        return {"axis": self.axis, "flagged_slices": self.flagged, "targets": found}


def review(volume: Volume, result: Segmentation, prompts: Iterable[Prompt] = ()) -> Review:
    """Measure and check a segmentation.

    Args:
        volume: The image.
        result: Labels on its grid.
        prompts: As the user gave them, in their own frames.

    Raises:
        VolumeError: The grids differ.
    """
    given = PromptSet(prompts)
    axis = result.report.get("axis")
    if axis is None:
        axis = choose_axis(volume, given.to_voxel(volume))
    checks = check(result, volume, int(axis))
    return Review(volume, result, given, int(axis), measure(result, volume), checks)


def write_page(
    reviewed: Review,
    manifest: Mapping[str, Any],
    path: str | os.PathLike[str],
    language: str = "en",
    patient: Sequence[str] = (),
) -> None:
    """Write the report as one HTML file without any link to another.

    Args:
        reviewed: Of `review`.
        manifest: Of `run_manifest`.
        path: File to write.
        language: `en` or `zh`.
        patient: Identifying lines to print, only where they were asked for.

    Raises:
        PromptsegError: The language is unknown.
        FormatError: The file cannot be written.
    """
    text = page(reviewed, manifest, language, patient)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def page(
    reviewed: Review,
    manifest: Mapping[str, Any],
    language: str = "en",
    patient: Sequence[str] = (),
) -> str:
    """The page's HTML; arguments as in `write_page`."""
    from jinja2 import Environment

    told = labels(language)
    source = files("promptseg.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    window = manifest.get("settings", {}).get("window", "auto")
    drawing = Drawing.of(reviewed.volume, reviewed.result, reviewed.axis, window, reviewed.prompts)
    named = {t: _name(reviewed.result, t, told) for t in reviewed.result.targets}
    return environment.from_string(source).render(
        t=told,
        language=language,
        created=str(manifest.get("created", ""))[:16].replace("T", " "),
        patient=list(patient),
        flagged=len(reviewed.flagged),
        many=len(named) > 1,
        targets=[_summary(reviewed, t, name, told) for t, name in named.items()],
        whole=_whole(reviewed, named, language),
        notes=manifest.get("notes", []),
        cards=_cards(reviewed, drawing, named, language),
        overview=drawing.overview(),
        axis_letter=_LETTERS[reviewed.axis],
        prompts=prompt_rows(reviewed.prompts, language),
        post=_post(reviewed.result),
        provenance=_provenance(reviewed, manifest, told),
    )


def _name(result: Segmentation, target: int, told: Mapping[str, str]) -> str:
    return result.labels.get(target) or f"{told['target']} {target}"


def _summary(reviewed: Review, target: int, name: str, told: Mapping[str, str]) -> dict[str, Any]:
    from markupsafe import Markup

    measured, found = reviewed.measured[str(target)], reviewed.checks[target]
    recist, grey = measured["recist"], measured["intensity"]
    colour = colour_of(reviewed.result, target)
    score = reviewed.result.score.get(target)
    flags = {f.slice for f in found.findings if f.slice is not None}
    curve = Markup(curve_svg(found.areas, flags, colour)) if found.areas else ""
    return {
        "name": name,
        "colour": colour,
        "volume": volume_text(measured["volume_ml"]),
        "recist": f"{recist['long_mm']:.1f} × {recist['short_mm']:.1f} mm" if recist else "–",
        "intensity": f"{grey['mean']:.3g} ± {grey['sd']:.3g} {grey['unit']}" if grey else "–",
        "quality": "–" if score is None else f"{score:.2f}",
        "components": len(found.components),
        "holes": found.holes,
        "border": ", ".join(found.borders),
        "flags": len(found.findings),
        "curve": curve,
    }


def volume_text(ml: float) -> str:
    """Millilitres, or cubic millimetres of what is small."""
    return f"{ml:.1f} ml" if ml >= 1 or ml == 0 else f"{ml * 1000:.3g} mm³"


def _whole(reviewed: Review, named: Mapping[int, str], language: str) -> list[dict[str, str]]:
    """Findings that belong to no slice."""
    return [
        {"name": named[finding.target], "reason": finding.words(language)}
        for finding in reviewed.findings
        if finding.slice is None
    ]


def _cards(
    reviewed: Review, drawing: Drawing, named: Mapping[int, str], language: str
) -> list[dict[str, Any]]:
    """Every flagged slice with its picture and the reasons."""
    by_slice: dict[int, list[Finding]] = {}
    for finding in reviewed.findings:
        if finding.slice is not None:
            by_slice.setdefault(finding.slice, []).append(finding)
    return [
        {
            "slice": index,
            "axis": _LETTERS[reviewed.axis],
            "picture": drawing.slice(index),
            "reasons": [
                {
                    "name": named[finding.target],
                    "colour": colour_of(reviewed.result, finding.target),
                    "reason": finding.words(language),
                }
                for finding in by_slice[index]
            ],
        }
        for index in sorted(by_slice)
    ]


def _post(result: Segmentation) -> list[dict[str, Any]]:
    rows = []
    for done in result.report.get("postprocessing", []):
        changes = [
            f"{target}: {volume_text(one['ml_before'])} → {volume_text(one['ml'])}"
            for target, one in done["targets"].items()
        ]
        rows.append({"step": done["step"], "changes": changes, "remarks": done["remarks"]})
    return rows


def _provenance(
    reviewed: Review, manifest: Mapping[str, Any], told: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Name, value and digest of what made the mask."""
    volume, settings = reviewed.volume, manifest.get("settings", {})
    shape = " × ".join(map(str, volume.shape))
    spacing = " × ".join(f"{side:.3g}" for side in volume.spacing)
    model, packages = manifest.get("model", {}), manifest.get("versions", {})
    rows = [
        (told["image"], f"{shape}, {spacing} mm", manifest.get("input", {}).get("sha256", "")),
        (told["modality"], volume.modality or told["unknown"], ""),
        (told["window"], str(settings.get("window", "")), ""),
        (told["axis"], _LETTERS[reviewed.axis], ""),
        (
            told["model"],
            f"{model.get('name', '')} ({told['licence']}: {model.get('licence', '')})",
            model.get("sha256") or "",
        ),
    ]
    for adapter in reviewed.result.provenance.get("adapters", []):
        rows.append((told["adapter"], str(adapter["name"]), str(adapter.get("digest", ""))))
    rows.append((told["mask"], "", reviewed.result.sha256))
    software = ", ".join(
        f"{name} {packages[name]}" for name in ("promptseg", "torch", "python") if name in packages
    )
    return [*rows, (told["software"], software, "")]
