"""Sessions of a visit, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from promptseg.demo.corrections import first_axis, preview_corrections
from promptseg.demo.finishing import finished
from promptseg.demo.models import Models
from promptseg.demo.visit import COLOURS, CancelledError, Target, Visit
from promptseg.errors import PromptError, PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.io.image import label_values
from promptseg.predictor.lessons import LEARNED
from promptseg.prompts.types import Mask, Prompt, Text
from promptseg.session import Segmenter, Session
from promptseg.volume import Segmentation


def begun(visit: Visit) -> Session:
    visit.opened()
    if visit.session is None:
        raise PromptError(visit.say("prompt_first"))
    return visit.session


def session_for(visit: Visit, models: Models, prompts: Sequence[Prompt] = ()) -> Session:
    """The session; before the first prompt a new one along that prompt's slices."""
    if visit.segmenter is None:
        visit.segmenter = network_for(visit, models, visit.model, visit.adapter)
        visit.own_network = visit.adapter == LEARNED
    begun = len(visit.prompts) or visit.undone or visit.labels is not None
    if visit.session is None or not begun:
        placed = [prompt for prompt in prompts if not isinstance(prompt, Text)]
        visit.session_axis = first_axis(visit, placed) if placed else "auto"
        visit.session = new_session(visit)
    return visit.session


def network_for(
    visit: Visit, models: Models, model: str, adapter: str | None, own: bool = False
) -> Segmenter:
    """A network with an adapter, which may be what was learned in this visit.

    Args:
        visit: Whose.
        models: Load it.
        model: One of those that the page offers.
        adapter: By name; None for none.
        own: True for one that nobody else uses.
    """
    if adapter == LEARNED:
        if visit.loop.pupil is not None and visit.loop.model == model:
            return visit.loop.pupil
        adapter = None
    return (models.own if own else models.segmenter)(model, adapter)


def offered_adapters(visit: Visit, models: Models, model: str) -> list[str]:
    """Adapters made for a model, with what was learned on it in this visit first."""
    loop = visit.loop
    learned = [LEARNED] if loop.pupil is not None and loop.model == model else []
    return [*learned, *models.adapters(model)]


def put_masks(visit: Visit, labels: np.ndarray, propagated: bool = True) -> None:
    """Begin with given masks, as prompts, so that clicks correct them; empty ones are none."""
    found = label_values(labels)
    if not found:
        return
    session = new_session(visit)
    session.add(*(Mask(labels == label, label) for label in found))
    visit.session = session
    keep(visit, session.answer(propagated), propagated)


def new_session(visit: Visit) -> Session:
    if visit.segmenter is None:
        raise PromptsegError(visit.say("open_first"))
    return visit.segmenter.session(visit.opened(), visit.session_axis, visit.model_window)


def rebuild(visit: Visit) -> None:
    """The same prompts in a session with what was chosen since."""
    given = visit.prompts
    visit.session = None
    visit.undone.clear()
    visit.forget_answer()
    if visit.volume is None or visit.segmenter is None or not len(given):
        return
    session = new_session(visit)
    for prompt in given:
        session.add(prompt)
    visit.session = session
    answer_slices(visit, session)


def take_own_network(visit: Visit, models: Models) -> None:
    """Put the same prompts to a network that nobody else uses.

    Words switch adapters on and off, which would change what others' clicks are answered with.
    """
    if visit.own_network:
        return
    visit.segmenter = network_for(visit, models, visit.model, visit.adapter, own=True)
    visit.own_network = True
    if visit.session is not None:
        session = new_session(visit)
        for prompt in visit.prompts:
            session.add(prompt)
        visit.session = session


def answer_slices(visit: Visit, session: Session) -> None:
    if visit.propagated:
        preview_corrections(visit, session)
    else:
        keep(visit, session.segment(), propagated=False)


def take_over_unprompted(visit: Visit, session: Session) -> None:
    """Make masks that no prompt asked for prompts themselves, so that clicks correct them."""
    if len(session.prompts) or visit.labels is None or visit.undone:
        return
    masks = [Mask(visit.labels == label, label) for label in label_values(visit.labels)]
    if masks:
        session.add(*masks)
        keep(visit, session.answer(True), propagated=True)


def settle(visit: Visit, session: Session, answer: bool, progress: Progress | None = None) -> None:
    """Bring the masks to what the prompts say after one was taken back or given again."""
    if not len(session.prompts):
        visit.forget_answer()
    elif answer or not visit.propagated:
        carried = visit.propagated
        result = session.answer(carried, progress=stoppable(visit, progress))
        keep(visit, result, carried)
    else:
        preview_corrections(visit, session)


def keep(visit: Visit, result: Segmentation, propagated: bool) -> None:
    visit.labels, visit.uncertainty = finished(visit, result).data, result.uncertainty
    visit.used_axis = result.report.get("axis")
    visit.notes = tuple(result.report.get("notes", ()))
    visit.scores = {int(t): float(s) for t, s in result.score.items()}
    visit.answered, visit.propagated = len(visit.prompts), propagated
    visit.preview, visit.trial, visit.sketch = {}, None, None
    visit.checked, visit.unsaved = [], True
    name_targets(visit, sorted({*result.score, *result.labels}), result.labels)


def name_targets(
    visit: Visit, labels: Sequence[int], names: Mapping[int, str] | None = None
) -> None:
    """Give those that have none a name and a colour."""
    for label in labels:
        if label not in visit.targets:
            name = (names or {}).get(label) or visit.say("target", number=label)
            visit.targets[label] = Target(name, COLOURS[(label - 1) % len(COLOURS)])


def stoppable(visit: Visit, progress: Progress | None) -> Callable[[str, int, int], None]:
    """`progress` that ends the computation once the visitor cancels or leaves."""

    def report(stage: str, done: int, total: int) -> None:
        if visit.cancel.is_set():
            raise CancelledError(visit.say("cancelled"))
        if progress is not None:
            progress(stage, done, total)

    return report
