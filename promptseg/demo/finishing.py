"""Post-processing of the masks on the page, off unless it is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from promptseg.demo.visit import Visit
from promptseg.refine.postprocessing import check_steps, postprocess
from promptseg.volume import Segmentation

CHOICES: dict[str, tuple[str, ...]] = {
    "none": (),
    "largest": ("largest",),
    "fill_holes": ("fill_holes",),
    "largest, fill_holes": ("largest", "fill_holes"),
    "smooth": ("smooth,mm=1",),
    "crop_to_body": ("crop_to_body",),
}
"""What the list offers; a program may give any steps."""


def choose_steps(visit: Visit, steps: Sequence[str]) -> None:
    """Do these steps to the masks from now on, and to those that are there.

    Raises:
        PromptError: A step is unknown or cannot be done; nothing was changed.
    """
    chosen = tuple(str(step) for step in check_steps(steps))
    before, visit.post = visit.post, chosen
    found = None if visit.session is None else visit.session.result
    if found is None or visit.labels is None:
        return
    try:
        visit.labels = finished(visit, found).data
    except BaseException:
        visit.post = before
        raise
    visit.unsaved = True


def finished(visit: Visit, result: Segmentation) -> Segmentation:
    """A result after the chosen steps."""
    return postprocess(result, visit.post, visit.volume) if visit.post else result


def chosen_name(visit: Visit) -> str:
    """The entry of the list that stands for the steps; the steps themselves if none does."""
    return next(
        (name for name, steps in CHOICES.items() if steps == visit.post), "; ".join(visit.post)
    )
