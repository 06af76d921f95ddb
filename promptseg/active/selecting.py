"""Ranking the cases of a site and choosing as many as the budget pays for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.active.looking import Looker, Progress
from promptseg.active.reference import Reference
from promptseg.active.samples import Sample, case_of
from promptseg.active.strategies import REFERENCE, TOKENS, Choice, Strategy
from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path
from promptseg.session import Segmenter
from promptseg.volume import Volume

COLUMNS = ("case", "slice", "score", "reason", "path")


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen, and from what.

    Args:
        strategy: Name.
        by: `case` or `slice`.
        chosen: Best first.
        samples: All of them.
        about: Model, adapter, budget and seed, as they are written.
    """

    strategy: str
    by: str
    chosen: Sequence[Choice]
    samples: Sequence[Sample]
    about: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": "promptseg-selection",
            "version": 1,
            "strategy": self.strategy,
            "by": self.by,
            **self.about,
            "of": len(self.samples),
            "chosen": [row_of(choice) for choice in self.chosen],
            "samples": [measures_of(sample) for sample in self.samples],
        }


def row_of(choice: Choice) -> dict[str, Any]:
    """A line of the list."""
    sample = choice.sample
    values = (sample.case, sample.slice, choice.score, choice.reason, sample.path)
    return dict(zip(COLUMNS, values, strict=True))


def measures_of(sample: Sample) -> dict[str, Any]:
    """Everything known of a sample but its feature."""
    return {
        "case": sample.case,
        "slice": sample.slice,
        "similarity": sample.similarity,
        "least_confidence": sample.least_confidence,
        "margin": sample.margin,
        "entropy": sample.entropy,
        "uncertainty": sample.uncertainty,
    }


def count_of(budget: str, total: int) -> int:
    """How many samples a budget is: `20%` of them, or `5`; at least one.

    Raises:
        FormatError: It is neither, or more than there are.
    """
    text = str(budget).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else None
        count = int(text) if share is None else max(1, round(share * total))
    except ValueError:
        raise FormatError(f"budget is {budget!r}: give a share such as 20%, or a number") from None
    if share is not None and not 0 < share <= 1:
        raise FormatError(f"budget is {budget!r}: give more than 0% and at most 100%")
    if not 1 <= count <= total:
        raise FormatError(f"budget is {budget!r} of {total}: give from 1 to {total}")
    return count


def check_needs(chosen: Strategy, segmenter: Segmenter, reference: Reference | None) -> None:
    """Raise FormatError if a strategy lacks what it needs."""
    if REFERENCE in chosen.needs and reference is None:
        raise FormatError(
            f"{chosen.name} compares with a source site: give --reference FILE, which that site "
            "makes with --make-reference"
        )
    if TOKENS in chosen.needs and not segmenter.adapters.tokens:
        raise FormatError(f"{chosen.name} needs predictions: give --adapter")


def model_name(segmenter: Segmenter) -> str:
    """Digest of base and adapter: features of other models cannot be compared."""
    active = segmenter.adapters.active
    return f"{segmenter.adapters.base_sha256} {'' if active is None else active.digest}".strip()


def select(
    looker: Looker,
    images: Mapping[str, Path],
    read: Callable[[Path], Volume],
    chosen: Strategy,
    budget: str,
    by: str = "case",
    reference: Reference | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Selection:
    """Look at every case and choose.

    Args:
        looker: With the model that the source site used.
        images: File by case.
        read: Reads one.
        chosen: The strategy.
        budget: `20%` or a number, of cases or slices.
        by: `case` or `slice`.
        reference: Of the source site.
        seed: Of what is chance.
        progress: Called with "look", done, total.

    Raises:
        FormatError: The budget cannot be, or the strategy lacks something.
        PromptsegError: A case cannot be read.
    """
    check_needs(chosen, looker.segmenter, reference)
    if by == "case":
        count_of(budget, len(images))
    samples = collected(looker, images, read, by, reference, bool(chosen.needs), progress)
    count = count_of(budget, len(samples))
    choices = chosen.choose(samples, count, np.random.default_rng(seed))
    about = {"budget": str(budget), "seed": seed, "model": model_name(looker.segmenter)}
    return Selection(chosen.name, by, choices, samples, about)


def collected(
    looker: Looker,
    images: Mapping[str, Path],
    read: Callable[[Path], Volume],
    by: str,
    reference: Reference | None,
    needed: bool,
    progress: Progress | None = None,
) -> list[Sample]:
    """Samples of every case, compared with the references where there are any.

    Args:
        looker: Looks at the cases.
        images: File by case.
        read: Reads one.
        by: `case` or `slice`.
        reference: Of the source site.
        needed: False to look at no case, for a strategy that needs nothing of whole cases.
        progress: Called with "look", done, total.
    """
    if by == "case" and not needed:
        return [
            Sample(n, None, None, 0.0, 0.0, 0.0, path=str(p)) for n, p in sorted(images.items())
        ]
    samples: list[Sample] = []
    for done, (name, path) in enumerate(sorted(images.items())):
        whole, slices = looker.case(name, read(path), path)
        judged = slices if reference is None else reference.judged(slices)
        samples += judged if by == "slice" else [case_of(judged, whole.uncertainty)]
        if progress is not None:
            progress("look", done + 1, len(images))
    return samples


def save_selection(selection: Selection, path: Path) -> None:
    """Write the list: CSV for a name that ends so, else JSON with all that is known.

    Raises:
        FormatError: It cannot be written.
    """
    text = json.dumps(selection.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path.suffix.lower() == ".csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row_of(choice) for choice in selection.chosen)
        text = buffer.getvalue()
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_chosen(path: Path) -> list[str]:
    """Names of the cases in a list of `save_selection`, or in a text with one name a line.

    Raises:
        FormatError: It cannot be read, or names no case.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    try:
        names = _names(text, path.suffix.lower())
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: no list of cases: {error!r}") from error
    if not names:
        raise FormatError(f"{path}: it names no case")
    return list(dict.fromkeys(names))


def _names(text: str, suffix: str) -> list[str]:
    if suffix == ".json":
        return [str(row["case"]) for row in json.loads(text)["chosen"]]
    if suffix == ".csv":
        return [row["case"].strip() for row in csv.DictReader(io.StringIO(text))]
    return [line.strip() for line in text.splitlines() if line.strip()]
