"""What became of words, for the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptseg.prompts.types import Text
from promptseg.text.selecting import Choice, Selector
from promptseg.volume import Segmentation


def told_of(
    choice: Choice, target: int, digest: str, result: Segmentation, selector: Selector
) -> dict[str, Any]:
    """What became of one target's words.

    Args:
        choice: The adapter and labels that were chosen for them.
        target: Their target.
        digest: Of the adapter.
        result: The answer.
        selector: Knows other words.
    """
    found = bool((result.data == target).any())
    reason, near = None, choice.nearest
    if not found:
        others = [name for name in selector.known() if name != choice.name]
        near = selector.nearest(choice.words, others)
        reason = (
            f"{choice.words!r} ({choice.name}) was judged absent from this volume by the "
            f"adapter {choice.adapter}; nearest others: {', '.join(near) or 'none'}"
            if not result.score.get(target)
            else f"{choice.words!r} ({choice.name}) was found only where other targets are already"
        )
    return {"target": target, "words": choice.words, "concept": choice.name,
            "likeness": round(choice.likeness, 3), "adapter": choice.adapter,
            "sha256": digest, "labels": list(choice.labels), "found": found, "reason": reason,
            "nearest": list(near), "note": choice.note or None}  # fmt: skip


def repeats_told(
    repeated: Sequence[tuple[Text, int]], told: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What became of words that mean the same as others.

    Args:
        repeated: Each with the target of the others.
        told: Of the others.
    """
    entries = {entry["target"]: entry for entry in told}
    made = []
    for prompt, target in repeated:
        first = entries[target]
        same = f"{prompt.words!r} means the same as {first['words']!r}"
        found = first["found"]
        made.append({**first, "words": prompt.words, "repeats": first["words"],
                     "note": f"{same}: nothing was added" if found else None,
                     "reason": None if found else f"{same}, which was not found"})  # fmt: skip
    return made


def summed_report(results: Mapping[str | None, Segmentation]) -> dict[str, Any]:
    """One report of the answers by adapter: that of one, or sums with each beside."""
    reports = [result.report for result in results.values()]
    if len(reports) == 1:
        return reports[0]
    summed = {key: sum(report[key] for report in reports)
              for key in ("encoded_slices", "decoded_masks")}  # fmt: skip
    timings: dict[str, float] = {}
    for report in reports:
        for stage, seconds in report["timings"].items():
            timings[stage] = timings.get(stage, 0.0) + seconds
    by_name = {name or "none": result.report for name, result in results.items()}
    larger = {t: a for report in reports for t, a in report["larger_than_trained"].items()}
    return {**reports[0], **summed, "timings": timings, "larger_than_trained": larger,
            "adapters": by_name}  # fmt: skip
