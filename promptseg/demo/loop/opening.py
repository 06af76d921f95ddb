"""Opening a project's case: its image, its prediction, and work on it that was not finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptseg.active.loop.claims import release
from promptseg.active.loop.project import Project
from promptseg.active.loop.showing import put_in_order
from promptseg.demo.answers import stoppable
from promptseg.demo.cases.drafts import written_at
from promptseg.demo.cases.projects import Served, who_of
from promptseg.demo.looking import close_image
from promptseg.demo.loop.arriving import Arrival, clock
from promptseg.demo.resuming import restore
from promptseg.demo.visit import Visit
from promptseg.demo.work_file import read_work
from promptseg.errors import PromptsegError
from promptseg.inference.encoder import Progress

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
            Arrival(visit, server, served, project, wanted, progress).show(afresh)
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
