"""Taking up work again that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from promptseg.demo.answers import (
    keep,
    network_for,
    new_session,
    offered_adapters,
    preview_corrections,
    put_masks,
    stoppable,
)
from promptseg.demo.looking import open_volume
from promptseg.demo.models import Models
from promptseg.demo.python_code import SAMPLE
from promptseg.demo.setting_aside import setting_aside
from promptseg.demo.visit import Target, Visit
from promptseg.demo.work_file import Work
from promptseg.errors import FormatError, PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.predictor.lessons import LEARNED
from promptseg.prompts.types import Prompt, Text

if TYPE_CHECKING:
    from promptseg.demo.server import Server
    from promptseg.session import Segmenter


@dataclass(frozen=True)
class Offer:
    """Work that a visitor may take up again.

    Args:
        name: Of the image.
        prompts: How many.
        masks: True if there are masks.
        when: Clock time at which it was kept, empty for a visit that is still held.
        ready: True if it can be taken up at once; else its image must be opened first.
        kept: Where it is on disk, and what it is; None for a visit that is still held.
        case: Project and name, where it is a project's case.
    """

    name: str
    prompts: int
    masks: bool
    when: str
    ready: bool
    kept: tuple[Path, Work] | None = None
    case: tuple[str, str] | None = None


def offer_to(visit: Visit, server: Server) -> Offer | None:
    """What the page offers a visitor: the visit of the same tab, else the newest kept work."""
    held = None if visit.worked else server.visits.left_by(visit)
    if held is not None:
        return Offer(held.name, len(held.prompts), held.labels is not None, "", True)
    kept = server.keeper.latest(visit)
    of_case = None if visit.volume is not None else server.projects.draft_for(visit)
    if of_case is not None and (kept is None or of_case[1].saved >= kept[1].saved):
        kept = of_case
    if kept is None:
        return None
    work = kept[1]
    ready = visit.volume is not None or work.name == SAMPLE or work.case is not None
    when = datetime.fromisoformat(work.saved).astimezone().strftime("%H:%M")
    masks = work.labels is not None
    return Offer(work.name, len(work.prompts), masks, when, ready, kept, work.case)


def take_up_again(visit: Visit, server: Server, progress: Progress | None = None) -> Visit:
    """Take up what `offer_to` offers; gives the visit that goes on.

    Raises:
        PromptsegError: There is nothing, or its image must be opened first.
    """
    offer = offer_to(visit, server)
    if offer is None:
        raise PromptsegError(visit.say("nothing_kept"))
    if offer.kept is None:
        return _take_over(visit, server)
    path, work = offer.kept
    if visit.volume is None and work.name == SAMPLE:
        open_volume(visit, server.sample(), SAMPLE, server.visits)
    restore(visit, server.models, work, progress)
    path.unlink(missing_ok=True)
    return visit


def forget_offer(visit: Visit, server: Server) -> None:
    """Keep what is offered no longer."""
    offer = offer_to(visit, server)
    if offer is None:
        return
    if offer.kept is not None:
        offer.kept[0].unlink(missing_ok=True)
    else:
        held = server.visits.left_by(visit)
        if held is not None:
            server.keeper.forget(held)
            server.visits.drop(held.key)
    visit.tell("forgotten")


def _take_over(visit: Visit, server: Server) -> Visit:
    """Go on with a visit that is still held; what was kept of it moves to this browser tab."""
    held = server.visits.left_by(visit)
    if held is not None and held.secret != visit.secret:
        server.keeper.forget(held)
    going = server.visits.take_over(visit)
    server.keeper.keep(going)
    return going


def restore(
    visit: Visit,
    models: Models,
    work: Work,
    progress: Progress | None = None,
    own: Segmenter | None = None,
) -> None:
    """Bring kept prompts and masks back on the image that is open.

    The prompts are answered again; where that gives other masks than were kept, as after an
    update, the kept ones stay and become prompts.

    Args:
        visit: Whose.
        models: Load what the work was done with.
        work: What was kept.
        progress: Called with stage, done, total.
        own: A network that nobody else uses, to go on with instead of what was chosen then.

    Raises:
        FormatError: It was done on another image.
    """
    began = perf_counter()
    if not work.fits(visit.opened()):
        raise FormatError(visit.say("other_image", name=work.name))
    with setting_aside(visit):
        _choose(visit, models, work, own)
        session = new_session(visit)
        for prompt in work.prompts[: work.answered]:
            session.add(prompt)
        visit.session = session
        if work.labels is not None:
            result = session.answer(work.propagated, progress=stoppable(visit, progress))
            keep(visit, result, work.propagated)
            if not np.array_equal(result.data, work.labels):
                put_masks(visit, work.labels, work.propagated)
        _add_waiting(visit, work.prompts[work.answered :])
        visit.targets = {label: Target(*shown) for label, shown in work.targets.items()} or (
            visit.targets
        )
        visit.active = work.active if work.active in visit.targets else min(visit.targets)
    visit.unsaved = True
    visit.tell("taken_up", name=visit.name, seconds=perf_counter() - began)


def _choose(visit: Visit, models: Models, work: Work, own: Segmenter | None) -> None:
    """The model, adapter and view that the work was done with, as far as they are here."""
    model = work.model if work.model in models.names() else visit.model
    adapter = work.adapter if work.adapter in offered_adapters(visit, models, model) else None
    worded = any(isinstance(prompt, Text) for prompt in work.prompts)
    if own is None:
        visit.segmenter = network_for(visit, models, model, adapter, own=worded)
        visit.own_network = worded or adapter == LEARNED
    else:
        visit.segmenter, visit.own_network = own, True
    visit.model, visit.adapter = model, adapter
    visit.model_window, visit.session_axis = work.model_window, work.session_axis
    visit.undone = []
    visit.forget_answer()
    shape = visit.opened().shape
    if work.axis in (0, 1, 2) and len(work.indices) == 3:
        visit.view.axis = work.axis
        visit.view.indices = [min(max(int(i), 0), n - 1) for i, n in
                              zip(work.indices, shape, strict=True)]  # fmt: skip


def _add_waiting(visit: Visit, prompts: Sequence[Prompt]) -> None:
    session = visit.session
    if session is None or not prompts:
        return
    for prompt in prompts:
        session.add(prompt)
    if visit.propagated:
        preview_corrections(visit, session)
