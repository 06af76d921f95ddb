"""Opening a project's case: its image, its prediction, and work on it that was not finished."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptseg.active.loop.claims import release
from promptseg.active.loop.project import Project
from promptseg.active.loop.showing import Shown, predict_case, put_in_order
from promptseg.datasets.cohort import read_labels
from promptseg.demo.actions import propagate
from promptseg.demo.answers import network_for, put_masks, stoppable
from promptseg.demo.keeping import mark
from promptseg.demo.looking import close_image, open_volume, show_slice
from promptseg.demo.loop.drafts import draft_path, drafts_of, is_by, written_at
from promptseg.demo.loop.projects import Served, who_of
from promptseg.demo.loop.state import Case
from promptseg.demo.resuming import restore
from promptseg.demo.setting_aside import setting_aside
from promptseg.demo.visit import COLOURS, CancelledError, Target, Visit
from promptseg.demo.work_file import Work, read_work
from promptseg.errors import FormatError, PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.predictor.lessons import LEARNED
from promptseg.volume import Volume

if TYPE_CHECKING:
    from promptseg.demo.server import Server


def open_case(
    visit: Visit,
    server: Server,
    name: str | None = None,
    progress: Progress | None = None,
    afresh: bool = False,
) -> None:
    """Open a case for a visitor, with its prediction, or with unfinished work on it.

    Args:
        visit: Whose.
        server: Offers the project that the visitor looks at.
        name: Of the case; None takes one that is still open with them, or the next in order.
        progress: Called with stage, done, total.
        afresh: True for the prediction although there is unfinished work.

    Raises:
        PromptsegError: No case is left, it is open with someone else, or it cannot be read; it is
            given back then.
    """
    served, open_now = server.projects.of(visit), visit.case
    with served.opened(who_of(visit)) as project:
        wanted = name or _next(visit, server, served, project, progress)
        if open_now is not None and not afresh and (open_now.project, open_now.name) == (
            served.name, wanted
        ):  # fmt: skip
            return
        if wanted in held_by_others(visit, server, served.name):
            raise PromptsegError(visit.say("open_elsewhere", case=wanted))
        before = project.case(wanted)["status"]
        project.open(wanted)
        try:
            _show(visit, server, served, project, wanted, before, progress, afresh)
        except BaseException:
            if before != "open":
                release(project, wanted)
            if visit.case is not open_now:
                close_image(visit)
            raise
    served.ahead.start(server.models, server.computing, most=1)


def take_up_other(visit: Visit, server: Server, progress: Progress | None = None) -> None:
    """Go on with the unfinished work of someone else on the case that is open.

    Raises:
        PromptsegError: There is none.
    """
    case = visit.case
    if case is None or case.other is None:
        raise PromptsegError(visit.say("no_case_open"))
    path = case.other
    work = read_work(path)
    restore(visit, server.models, work, progress)
    case.other = None
    when = clock(written_at(path))
    visit.tell("case_taken", case=case.name, who=work.who, when=when)


def clock(at: float) -> str:
    """A time of today as a clock shows it, an earlier one with its day."""
    moment, now = datetime.fromtimestamp(at), datetime.now()
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%d.%m. %H:%M")


def held_by_others(visit: Visit, server: Server, project: str) -> set[str]:
    """Cases of a project that the same person has open in other windows that are still there.

    Worked on in two windows, one would overwrite the other.
    """
    who = who_of(visit)
    return {
        other.case.name
        for other in server.visits.held()
        if other is not visit and not other.left and other.case is not None
        and (other.case.project, other.case.who) == (project, who)
        and (not visit.secret or other.secret != visit.secret)
    }  # fmt: skip


def _next(
    visit: Visit, server: Server, served: Served, project: Project, progress: Progress | None
) -> str:
    """A case that is still open with them and in no other window, else the first in order."""
    elsewhere = held_by_others(visit, server, served.name)
    rows = project.store.run(
        "SELECT name FROM cases WHERE status = 'open' AND holder = ? ORDER BY opened_at",
        (project.who,),
    )
    own = [str(row["name"]) for row in rows if row["name"] not in elsewhere]
    if own:
        return own[0]
    if project.store.setting("order") != "name":
        with served.network(server.models) as segmenter:
            put_in_order(project, segmenter, stoppable(visit, progress))
    rows = project.store.run(
        "SELECT name FROM cases WHERE status = 'new' ORDER BY priority IS NULL, priority, name "
        "LIMIT 1"
    )
    if not rows:
        raise PromptsegError(visit.say("no_case_left"))
    return str(rows[0]["name"])


def _show(
    visit: Visit,
    server: Server,
    served: Served,
    project: Project,
    name: str,
    before: str,
    progress: Progress | None,
    afresh: bool,
) -> None:
    drafts = drafts_of(served.folder, name)
    own = [path for path in drafts if is_by(path, project.who)]
    work = None if afresh or not own else _readable(own[0])
    known = _accepted(project, name) if before == "accepted" else None
    by_pupil = visit.loop.use and visit.loop.model == served.model
    shown = Shown(name, str(project.case(name)["image"]))
    try:
        volume = project.volume(name)
    except PromptsegError as error:
        _have_no_image(visit, served, project, name, server.shown(error))
        return
    if work is None and known is None and not by_pupil:
        with served.network(server.models) as segmenter:
            shown = predict_case(project, segmenter, name, stoppable(visit, progress))
    aside = visit.before[-1:]
    spent = visit.case.spent if visit.case is not None and visit.case.name == name else 0.0
    _open_image(visit, server, served, project, volume, name)
    case = Case(
        served.name, name, project.who,
        draft_path(served.folder, name, project.who, visit.secret),
        shown.version, shown.effort, shown.reason or "",
        spent=spent, other=next((path for path in drafts if path not in own), None),
    )  # fmt: skip
    visit.case = case
    if work is not None:
        _take_up(visit, server, case, work, own[0], progress)
    elif known is not None:
        _begin_with(visit, known)
        visit.tell("case_again", case=name)
    elif by_pupil:
        predict_with_pupil(visit, server, progress)
    else:
        _show_prediction(visit, case, shown)
    if visit.before[-1:] != aside:
        # The prediction is no step of its own: Undo goes back to what was open before.
        visit.before[-1] = replace(visit.before[-1], steps=len(visit.prompts))
    if case.other is not None:
        kind, told = visit.message
        when = clock(written_at(case.other))
        visit.message = kind, told + visit.say("case_others", when=when)
    visit.unsaved, visit.kept = False, mark(visit)


def _readable(path: Path) -> Work | None:
    try:
        return read_work(path)
    except FormatError:
        return None


def _have_no_image(visit: Visit, served: Served, project: Project, name: str, why: str) -> None:
    """An image that cannot be read is open all the same, so that it can be rejected."""
    with setting_aside(visit):
        close_image(visit)
    draft = draft_path(served.folder, name, project.who, visit.secret)
    visit.case = Case(served.name, name, project.who, draft)
    visit.refuse("case_unreadable", case=name, error=why)


def _open_image(
    visit: Visit, server: Server, served: Served, project: Project, volume: Volume, name: str
) -> None:
    """The image with the project's targets and base; what else was open can be undone to."""
    open_volume(visit, volume, name, server.visits)
    visit.model = served.model
    learned = visit.loop.use and visit.loop.model == served.model
    visit.adapter = LEARNED if learned else None
    visit.segmenter = network_for(visit, server.models, visit.model, visit.adapter)
    visit.own_network = learned
    visit.targets = {
        label: Target(words, COLOURS[(label - 1) % len(COLOURS)])
        for label, words in sorted(project.labels.items())
    }
    visit.active = min(visit.targets)


def _take_up(
    visit: Visit, server: Server, case: Case, work: Work, path: Path, progress: Progress | None
) -> None:
    before = list(visit.before)
    restore(visit, server.models, work, progress)
    # The empty image before it is nothing to go back to.
    visit.before = before
    case.spent, case.version = work.spent, work.predicted
    visit.tell("case_back", case=case.name, when=clock(written_at(path)))


def _show_prediction(visit: Visit, case: Case, shown: Shown) -> None:
    if shown.mask is None or shown.version is None:
        visit.tell("case_bare", case=case.name)
        return
    if shown.axis is not None:
        visit.session_axis = shown.axis
    _begin_with(visit, read_labels(Path(shown.mask)).data)
    if shown.axis is not None and shown.slice is not None:
        visit.view.axis = shown.axis
        show_slice(visit, shown.slice)
    visit.tell(
        "case_opened", case=case.name, version=shown.version, effort=shown.effort or 0.0,
        reason=shown.reason or "",
    )  # fmt: skip


def _begin_with(visit: Visit, labels: np.ndarray) -> None:
    put_masks(visit, labels)
    # Their quality as prompts is 1, which says nothing.
    visit.scores = {}


def predict_with_pupil(visit: Visit, server: Server, progress: Progress | None = None) -> None:
    """Show what was learned in this visit says of the image that is open."""
    try:
        propagate(visit, server.models, progress)
    except CancelledError:
        visit.tell("cancelled")
        return
    if visit.case is not None and visit.labels is not None:
        visit.case.begun, visit.case.version = visit.labels.copy(), None
        visit.tell("case_learned", case=visit.case.name)
    visit.unsaved, visit.kept = False, mark(visit)


def _accepted(project: Project, name: str) -> np.ndarray | None:
    """The mask that was accepted last."""
    rows = project.store.run(
        "SELECT mask FROM accepted WHERE name = ? ORDER BY id DESC LIMIT 1", (name,)
    )
    return read_labels(project.folder / rows[0]["mask"]).data if rows else None
