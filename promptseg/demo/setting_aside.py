"""What clearing, opening and choosing replace is set aside, so that Undo brings it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from promptseg.demo.visit import Visit
from promptseg.demo.visit_parts import Earlier

MOST_KEPT = 6
"""Steps back beyond which clearing and choosing again are final: each may hold one label array."""

OWN = (
    "model", "adapter", "model_window", "volume", "name", "segmenter", "session", "own_network",
    "view", "targets", "active", "answered", "propagated", "labels", "uncertainty", "scores",
    "session_axis", "used_axis", "preview", "sketch", "trial", "undone", "checked", "unsaved",
    "work_id", "case", "notes",
)  # fmt: skip


def earlier(visit: Visit) -> Earlier:
    """The visit as it is now."""
    state = {name: getattr(visit, name) for name in OWN}
    state["view"] = replace(visit.view, indices=list(visit.view.indices))
    state["targets"] = {label: replace(target) for label, target in visit.targets.items()}
    state["undone"], state["checked"] = list(visit.undone), list(visit.checked)
    return Earlier(state)


@contextmanager
def setting_aside(visit: Visit) -> Iterator[None]:
    """Do what replaces prompts or masks; Undo brings back what was there, a failure at once."""
    before = earlier(visit)
    try:
        yield
    except BaseException:
        put_back(visit, before)
        raise
    if before.worth_keeping:
        visit.before.append(replace(before, steps=len(visit.prompts)))
        forget_surplus(visit)
        visit.after.clear()


def forget_surplus(visit: Visit) -> None:
    """Keep the latest steps, and of other images than the open one the latest alone."""
    del visit.before[:-MOST_KEPT]
    images = [one.state["volume"] for one in visit.before]
    others = [one for one in images if one is not visit.volume]
    if others:
        first = next(n for n, one in enumerate(images) if one is others[-1])
        del visit.before[:first]


def can_step_back(visit: Visit) -> bool:
    """True if the next Undo brings back what was set aside."""
    return bool(visit.before) and len(visit.prompts) <= visit.before[-1].steps


def can_step_forward(visit: Visit) -> bool:
    """True if the next Redo does again what set something aside."""
    return bool(visit.after) and len(visit.prompts) == visit.after[-1].steps


def step_back(visit: Visit) -> None:
    """Bring back what was set aside last."""
    left, back = earlier(visit), visit.before.pop()
    put_back(visit, back)
    visit.after.append(replace(left, steps=len(visit.prompts)))


def step_forward(visit: Visit) -> None:
    """Set the same aside again."""
    left, forward = earlier(visit), visit.after.pop()
    put_back(visit, forward)
    visit.before.append(replace(left, steps=len(visit.prompts)))


def put_back(visit: Visit, before: Earlier) -> None:
    """Make the visit what it was."""
    for name, value in before.state.items():
        setattr(visit, name, value)
