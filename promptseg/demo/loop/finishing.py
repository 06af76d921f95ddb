"""What becomes of the case that is open: accepted, rejected, or given back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptseg.active.loop.claims import release
from promptseg.active.loop.project import Accepted, Project
from promptseg.demo.actions import take_up
from promptseg.demo.case_state import Case, Lesson
from promptseg.demo.cases.drafts import drop_drafts
from promptseg.demo.cases.projects import Served
from promptseg.demo.looking import close_image
from promptseg.demo.visit import Visit
from promptseg.errors import PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.volume import Segmentation

if TYPE_CHECKING:
    from promptseg.demo.server import Server


def accept_case(visit: Visit, server: Server, progress: Progress | None = None) -> Accepted:
    """Accept the masks as they are shown, corrections that wait included, and close the case.

    Raises:
        PromptsegError: No case is open, its mask is not 3D yet or empty for the first time, or it
            is no longer this visitor's; the work is kept.
    """
    case, volume = _open_case(visit), visit.opened()
    if visit.pending and visit.propagated:
        take_up(visit, progress)
    labels = _labels(visit, case)
    served = server.projects.named(case.project)
    with served.opened(case.who) as project:
        _check_undecided(visit, project, case)
        shown = _shown(visit, project, case)
        done = project.accept(
            case.name,
            Segmentation.from_volume(volume, labels),
            round(case.spent, 1),
            shown=shown,
            empty=case.confirmed,
        )
        if labels.any():
            visit.loop.waiting.append(_lesson(project, served, case.name))
    _close(visit, server, case, done=True)
    _tell_accepted(visit, done)
    return done


def reject_case(visit: Visit, server: Server, reason: str = "") -> None:
    """Leave the case out; unfinished work on it is kept.

    Raises:
        PromptsegError: No case is open, or it is no longer this visitor's.
    """
    case = _open_case(visit)
    with server.projects.named(case.project).opened(case.who) as project:
        project.reject(case.name, reason.strip())
    _close(visit, server, case)
    visit.tell("rejected", case=case.name)


def give_back_case(visit: Visit, server: Server) -> None:
    """Give the case back to the others; unfinished work on it is kept.

    Raises:
        PromptsegError: No case is open.
    """
    case = _open_case(visit)
    with server.projects.named(case.project).opened(case.who) as project:
        release(project, case.name)
    _close(visit, server, case)
    visit.tell("released", case=case.name)


def spent_text(visit: Visit, seconds: float) -> str:
    """Minutes and seconds."""
    whole = round(seconds)
    return visit.say("clock_time", minutes=whole // 60, seconds=whole % 60)


def _open_case(visit: Visit) -> Case:
    if visit.case is None:
        raise PromptsegError(visit.say("no_case_open"))
    return visit.case


def _labels(visit: Visit, case: Case) -> np.ndarray:
    """The masks to accept; one that is empty only when it is said twice."""
    volume = visit.opened()
    labels = np.zeros(volume.shape, np.uint8) if visit.labels is None else visit.labels
    if (labels.any() or visit.pending) and not visit.propagated:
        raise PromptsegError(visit.say("propagate_first"))
    if labels.any():
        case.confirmed = False
    elif not case.confirmed:
        case.confirmed = True
        raise PromptsegError(visit.say("accept_empty", case=case.name))
    return labels


def _check_undecided(visit: Visit, project: Project, case: Case) -> None:
    """Refuse what somebody else has accepted meanwhile, after the claim was too old."""
    if project.case(case.name)["status"] == "accepted":
        raise PromptsegError(visit.say("accepted_meanwhile", case=case.name))


def _shown(visit: Visit, project: Project, case: Case) -> Path | Segmentation | None:
    """What the visitor began with: of an earlier version, if the work was begun with that."""
    if case.begun is not None:
        return Segmentation.from_volume(visit.opened(), case.begun)
    if case.version is None:
        return None
    rows = project.store.run(
        "SELECT mask FROM predictions WHERE name = ? AND version = ?", (case.name, case.version)
    )
    path = project.folder / rows[0]["mask"] if rows else None
    return path if path is not None and path.is_file() else None


def _lesson(project: Project, served: Served, name: str) -> Lesson:
    rows = project.store.run(
        "SELECT mask FROM accepted WHERE name = ? ORDER BY id DESC LIMIT 1", (name,)
    )
    image = Path(project.case(name)["image"])
    return Lesson(name, image, project.folder / rows[0]["mask"], project.labels, served.model)


def _close(visit: Visit, server: Server, case: Case, done: bool = False) -> None:
    """Close the image; no Undo leads back to a case that was decided on."""
    server.keeper.flush()
    if done:
        drop_drafts(server.projects.named(case.project).folder, case.name, case.who)
    for steps in (visit.before, visit.after):
        steps[:] = [one for one in steps if one.state["case"] is not case]
    close_image(visit)


def _tell_accepted(visit: Visit, done: Accepted) -> None:
    revised = "" if done.revision is None else visit.say("revised", revision=done.revision)
    visit.tell(
        "accepted", case=done.name, spent=spent_text(visit, done.seconds or 0.0), revised=revised,
        held=visit.say("kept_back") if done.held else "",
    )  # fmt: skip
