"""What every loaded adapter finds in a volume, in one answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from promptseg.adapters import AdapterStack
from promptseg.volume import Segmentation, Volume


def by_every_adapter(
    adapters: AdapterStack, volume: Volume, answer: Callable[[], Segmentation]
) -> Segmentation:
    """Ask each adapter in turn; a label that is taken gets the next free number.

    Args:
        adapters: The one in use is the same afterwards.
        volume: What is asked about.
        answer: Asks the one that is in use.
    """
    kept = adapters.active, adapters.scale
    answers: dict[str, Segmentation] = {}
    try:
        for name in adapters.names:
            adapters.use(name)
            answers[name] = answer()
    finally:
        adapters.use(None if kept[0] is None else kept[0].name, kept[1])
    return _together(volume, answers)


def _together(volume: Volume, answers: dict[str, Segmentation]) -> Segmentation:
    data = np.zeros(volume.shape, np.uint16)
    names: dict[int, str] = {}
    score: dict[int, float] = {}
    for one in answers.values():
        for label, words in one.labels.items():
            number = label if label not in names else max(names) + 1
            data[(one.data == label) & (data == 0)] = number
            names[number], score[number] = words, one.score.get(label, 0.0)
    doubts = [one.uncertainty for one in answers.values() if one.uncertainty is not None]
    doubt = np.maximum.reduce(doubts) if doubts else None
    reports: dict[str, Any] = {name: one.report for name, one in answers.items()}
    report = {**list(reports.values())[-1], "adapters": reports}
    return Segmentation.from_volume(
        volume, data, score=score, uncertainty=doubt, labels=names, report=report
    )
