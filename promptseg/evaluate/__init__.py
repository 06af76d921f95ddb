"""Measuring interactive segmentation: simulated users, metrics, baselines, reports.

This module can be called: `promptseg.evaluate(segmenter, images, labels)` is
`promptseg.evaluate.evaluate`, since the package and its main function share their name.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptseg.datasets.cohort import Images, Labels
    from promptseg.evaluate.reports import Report
    from promptseg.inference.encoder import Progress
    from promptseg.session import RefineMode, Segmenter

__all__ = ["evaluate"]


def evaluate(
    segmenter: Segmenter,
    images: Images,
    labels: Labels,
    protocol: str = "clicks",
    *,
    label: int | None = None,
    dims: str = "2d",
    clicks: int = 5,
    start: str = "point",
    cases: int | tuple[int, int] | None = None,
    slices: int | None = None,
    least_pixels: int = 10,
    jitter: float = 0.05,
    seed: int = 0,
    axis: int | str = "auto",
    window: str | None = "auto",
    refine: RefineMode = "network",
    text: str | None = None,
    scribbles: str | os.PathLike[str] | None = None,
    trust_voxels: bool = False,
    against: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    figures: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Measure a segmenter with simulated users.

    The same arguments and seed give the same rows, but for the seconds. Clicks follow the rule
    of the CVPR 2025 interactive 3D biomedical segmentation challenge.

    Args:
        segmenter: What is measured.
        images: Folder, or list of files or volumes; `.png` and `.jpg` become one slice each.
        labels: The same for the known labels; pairs are matched by file name.
        protocol: `box`, `point`, `clicks`, `scribble`, `margin`, `text` or `auto`.
        label: Label to segment; None takes every label of a case in turn.
        dims: `2d` prompts and scores every slice by itself, `3d` the volume: a box is then one
            flat box on the slice with the largest area.
        clicks: Clicks of the protocol `clicks`.
        start: What comes before them: `box`, `margin` or `scribble`; `point` is the first click.
        cases: First N cases in sorted order, or the first and the last, counted from 1.
        slices: Slices a case and label in 2D, drawn by the seed; None takes all.
        least_pixels: Slices on which the label has fewer are left out in 2D.
        jitter: Greatest move of a box edge, as a share of the box's side.
        seed: Decides every random choice together with case, label and slice.
        axis: Slice axis; `auto` is that of the largest spacing.
        window: As in `Segmenter.segment`.
        refine: How clicks correct: `network`, and in a volume `graph_cut` or `both`, as in
            `Session.refine`.
        text: Words of the protocol `text`; None takes the adapter's name of each label.
        scribbles: Folder with human scribbles; None simulates them.
        trust_voxels: True to match labels by their place in the array, whatever the affines say.
        against: Baselines on the same prompts: `ellipse`, `grabcut`, `random_walker`,
            `graph_cut`, `network`.
        out: Folder for `cases.csv`, `summary.json` and figures; None writes nothing.
        figures: False leaves the figures out.
        progress: Called with stage, done, total.

    Returns:
        Rows by case and label, a summary, and pictures of the worst.

    Raises:
        FormatError: Files are missing, unmatched or unreadable; every fault is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
        PromptError: An option is out of range, or the model cannot use the protocol's prompts.

    Example:
        >>> import promptseg as ps
        >>> segmenter = ps.Segmenter.from_pretrained("default")  # doctest: +SKIP
        >>> report = ps.evaluate(segmenter, "images", "labels", dims="3d")  # doctest: +SKIP
        >>> report.summary["dice"]["mean"], report.summary["dice_per_click"]  # doctest: +SKIP
    """
    from promptseg.datasets.cohort import load_cases
    from promptseg.evaluate.running import opened, run
    from promptseg.evaluate.settings import Settings

    settings = Settings(
        protocol=protocol,
        dims=dims,
        label=label,
        clicks=clicks,
        start=start,
        seed=seed,
        slices=slices,
        least_pixels=least_pixels,
        jitter=jitter,
        axis=axis,
        window=window,
        refine=refine,
        text=text,
        scribbles=None if scribbles is None else Path(scribbles),
        against=tuple(against),
    )
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
