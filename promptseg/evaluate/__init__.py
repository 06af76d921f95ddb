"""Measuring interactive segmentation: simulated users, metrics, baselines, reports.

This module can be called: `promptseg.evaluate(segmenter, images, labels)` is
`promptseg.evaluate.evaluate`, since the package and its main function share their name.
"""

from __future__ import annotations

import inspect
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptseg.datasets.cohort import Images, Labels
    from promptseg.evaluate.reports import Report
    from promptseg.inference.encoder import Progress
    from promptseg.session import Segmenter

__all__ = ["evaluate"]


def evaluate(
    segmenter: Segmenter,
    images: Images,
    labels: Labels,
    protocol: str = "clicks",
    *,
    cases: int | tuple[int, int] | None = None,
    trust_voxels: bool = False,
    out: str | os.PathLike[str] | None = None,
    figures: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Measure a segmenter with simulated users.

    The same arguments and seed give the same rows, but for the seconds. Clicks follow the rule
    of the CVPR 2025 interactive 3D biomedical segmentation challenge.

    Args:
        segmenter: What is measured.
        images: Folder, or list of files or volumes; `.png` and `.jpg` become one slice each.
        labels: The same for the known labels; pairs are matched by file name.
        protocol: `box`, `point`, `clicks`, `scribble`, `margin`, `text` or `auto`.
        cases: First N cases in sorted order, or the first and the last, counted from 1.
        trust_voxels: True to match labels by their place in the array, whatever the affines say.
        out: Folder for `cases.csv`, `summary.json` and figures; None writes nothing.
        figures: False leaves the figures out.
        progress: Called with stage, done, total.
        options: Any other field of `promptseg.evaluate.settings.Settings`, such as `dims="3d"`,
            `clicks=10`, `seed=1`, `refine="both"` or `against=["grabcut"]`.

    Returns:
        Rows by case and label, a summary, and pictures of the worst.

    Raises:
        FormatError: Files are missing, unmatched or unreadable; every fault is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
        PromptError: An option is unknown or out of range, or the model cannot use the protocol's
            prompts.

    Example:
        >>> import promptseg as ps
        >>> segmenter = ps.Segmenter.from_pretrained("default")  # doctest: +SKIP
        >>> report = ps.evaluate(segmenter, "images", "labels", dims="3d")  # doctest: +SKIP
        >>> report.summary["dice"]["mean"], report.summary["dice_per_click"]  # doctest: +SKIP
    """
    from promptseg.datasets.cohort import load_cases
    from promptseg.evaluate.running import opened, run
    from promptseg.evaluate.settings import settings_of

    settings = settings_of(protocol, options)
    pairs = opened(images, labels, settings, cases, trust_voxels)
    report = run(segmenter, load_cases(pairs), settings, len(pairs), progress)
    if out is not None:
        report.save(out, figures)
    return report


class _CallableModule(ModuleType):
    """The import system sets `promptseg.evaluate` to this module; so the module is callable."""

    def __call__(self, *args: Any, **options: Any) -> Report:
        return evaluate(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(evaluate)


sys.modules[__name__].__class__ = _CallableModule
