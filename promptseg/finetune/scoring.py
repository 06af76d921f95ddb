"""Scores of a finished adapter on its validation cases, by the protocols of `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from promptseg.adapters import Adapter
from promptseg.backbones.base import Backbone
from promptseg.datasets.cohort import Pair, load_cases, present_labels
from promptseg.evaluate.running import run
from promptseg.evaluate.settings import Settings
from promptseg.finetune.case_loading import window_of
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.trainer import Progress
from promptseg.session import Segmenter

SHOWN = ("dice", "hd95_mm")


def final_scores(
    backbone: Backbone,
    adapter: Adapter,
    pairs: Sequence[Pair],
    config: FinetuneConfig,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Mean over cases and labels: a jittered box on slices, and no prompt in 3D.

    Args:
        backbone: The base, without adapters; it is left so.
        adapter: As it was written.
        pairs: Validation cases.
        config: Says how many slices, and 0 to leave the scores out.
        device: Where to compute.
        progress: Called with "score", done, total.
    """
    if not pairs or config.final_slices == 0:
        return {}
    segmenter = Segmenter(backbone, str(device), "auto")
    segmenter.adapters.add(adapter)
    segmenter.adapters.use(adapter.name)
    ways = {"box_2d": ("box", "2d")}
    if config.unprompted > 0:
        ways["auto_3d"] = ("auto", "3d")
    scores: dict[str, Any] = {}
    jobs = [(way, label) for way in ways for label in adapter.info.labels]
    try:
        for done, (way, label) in enumerate(jobs):
            protocol, dims = ways[way]
            settings = Settings(
                protocol,
                dims,
                label=label,
                slices=config.final_slices,
                axis=config.axis,
                window=window_of(config),
            )
            usable = [pair for pair in pairs if label in present_labels(pair.load().labels)]
            if usable:
                summary = run(segmenter, load_cases(usable), settings).summary
                scores.setdefault(way, {})[str(label)] = {k: summary[k] for k in SHOWN}
            if progress is not None:
                progress("score", done + 1, len(jobs))
    finally:
        segmenter.adapters.remove(adapter.name)
    return scores
