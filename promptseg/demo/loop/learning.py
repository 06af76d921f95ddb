"""`session.learn()` on the page: what was accepted in a visit teaches the next image in seconds."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from promptseg.datasets.cohort import read_image, read_labels
from promptseg.demo.case_state import Lesson
from promptseg.demo.keeping import mark
from promptseg.demo.loop.arriving import predict_with_pupil
from promptseg.demo.setting_aside import setting_aside
from promptseg.demo.visit import Visit
from promptseg.errors import PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.predictor.learning import Effort
from promptseg.predictor.lessons import LEARNED
from promptseg.session import Segmenter

if TYPE_CHECKING:
    from promptseg.demo.server import Server

MOST_BYTES = 256 << 20
"""Embeddings of examples that one visit may keep; beyond, the oldest case is forgotten."""
LOOK = Effort(steps=1)
"""For all but the last of several new examples: they are taken in, and learned from together."""


def learn_from_visit(
    visit: Visit, server: Server, progress: Progress | None = None, effort: Effort | None = None
) -> None:
    """Learn from what this visitor accepted, or from the mask of an image of their own.

    The next image is answered with it, and the present one if nothing was done on it yet.

    Args:
        visit: Whose.
        server: Loads the network.
        progress: Called with stage, done, total.
        effort: How long to learn, as in `Session.learn`.

    Raises:
        PromptsegError: There is nothing to learn from, or the network takes no token.
    """
    began, loop = perf_counter(), visit.loop
    own = _own_mask(visit)
    model = visit.model if own is not None or not loop.waiting else loop.waiting[-1].model
    given = [lesson for lesson in loop.waiting if lesson.model == model]
    if not given and own is None:
        raise PromptsegError(visit.say("nothing_to_learn"))
    pupil = _pupil(visit, server, model)
    for number, lesson in enumerate(given, 1):
        last = number == len(given) and own is None
        _take(pupil, lesson, effort if last else LOOK)
        _remember(visit, lesson)
        if progress is not None:
            progress("learning", number, len(given))
    if own is not None:
        names = {label: target.name for label, target in visit.targets.items()}
        pupil.session(visit.opened()).learn(own, names, effort)
        loop.learned = list(dict.fromkeys([*loop.learned, visit.name]))
    loop.use = True
    if visit.volume is not None and visit.model == model:
        _answer_anew(visit, server, pupil, progress)
    visit.tell("learned", count=len(pupil.lessons), seconds=perf_counter() - began)


def _own_mask(visit: Visit) -> np.ndarray | None:
    """The 3D mask on an image that is no project's case."""
    if visit.case is not None or not visit.propagated or visit.labels is None:
        return None
    return visit.labels if visit.labels.any() else None


def _answer_anew(visit: Visit, server: Server, pupil: Segmenter, progress: Progress | None) -> None:
    """Answer the present image with what was learned, where nobody has worked on it yet."""
    untouched = visit.case is not None and mark(visit) == visit.kept
    if visit.worked and not untouched:
        return
    with setting_aside(visit):
        visit.adapter, visit.segmenter, visit.own_network = LEARNED, pupil, True
        visit.session = None
        if visit.case is not None:
            predict_with_pupil(visit, server, progress)


def _pupil(visit: Visit, server: Server, model: str) -> Segmenter:
    """The visitor's own network; one of another base begins afresh."""
    loop = visit.loop
    if loop.pupil is None or loop.model != model:
        loop.pupil, loop.model, loop.learned = server.models.own(model, None), model, []
        loop.pupil.lessons.max_bytes = MOST_BYTES
    return loop.pupil


def _take(pupil: Segmenter, lesson: Lesson, effort: Effort | None) -> None:
    labels = np.asarray(read_labels(lesson.mask).data)
    pupil.session(read_image(lesson.image)).learn(labels, lesson.labels, effort)


def _remember(visit: Visit, lesson: Lesson) -> None:
    loop = visit.loop
    loop.waiting = [one for one in loop.waiting if one is not lesson]
    loop.learned = list(dict.fromkeys([*loop.learned, lesson.name]))
