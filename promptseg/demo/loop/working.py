"""The steps of the tab that are made of smaller ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptseg.active.loop.project import NONE
from promptseg.demo.cases.ahead import unpredicted
from promptseg.demo.cases.projects import who_of
from promptseg.demo.loop.finishing import accept_case
from promptseg.demo.loop.opening import open_case
from promptseg.demo.loop.panel import LENGTHS
from promptseg.demo.resuming import offer_to, take_up_again
from promptseg.demo.visit import CancelledError, Visit
from promptseg.errors import PromptsegError
from promptseg.inference.encoder import Progress

if TYPE_CHECKING:
    from promptseg.demo.server import Server


def call(visit: Visit, name: str | None) -> None:
    """Record changes for a name from now on; none for the login, or this machine's user."""
    visit.loop.who = (name or "").strip()[:60]


def accept(visit: Visit, server: Server, progress: Progress | None = None) -> None:
    """Accept the open case and close it; raises as `accept_case` does."""
    accept_case(visit, server, progress)


def accept_and_next(visit: Visit, server: Server, progress: Progress | None = None) -> None:
    """Accept the open case and open the next; raises as `accept_case` does.

    What hinders the next one takes nothing back of what was accepted.
    """
    accept_case(visit, server, progress)
    told = visit.message[1]
    try:
        open_case(visit, server, None, progress)
        visit.message = visit.message[0], f"{told} {visit.message[1]}"
    except CancelledError:
        visit.message = "info", told
    except PromptsegError as error:
        visit.message = "info", f"{told} {server.shown(error)}"


def bring_back(visit: Visit, server: Server, progress: Progress | None = None) -> Visit:
    """Take up what the page offers, a project's case included; gives the visit that goes on.

    Raises:
        PromptsegError: There is nothing, its image must be opened first, or the case is someone
            else's by now.
    """
    offer = offer_to(visit, server)
    if offer is None or offer.case is None or offer.kept is None:
        return take_up_again(visit, server, progress)
    visit.loop.project, name = offer.case
    if not visit.loop.login:
        visit.loop.who = offer.kept[1].who
    open_case(visit, server, name, progress)
    return visit


def start_over(visit: Visit, server: Server, progress: Progress | None = None) -> None:
    """The prediction once more; Undo brings the work back.

    Raises:
        PromptsegError: No case is open.
    """
    if visit.case is None:
        raise PromptsegError(visit.say("no_case_open"))
    open_case(visit, server, visit.case.name, progress, afresh=True)


def choose_project(visit: Visit, server: Server, name: str) -> None:
    """Look at another project of this server; an open case stays open.

    Raises:
        PromptsegError: The server offers no such project.
    """
    visit.loop.project = server.projects.named(name).name


def choose_length(visit: Visit, name: str) -> None:
    """How long to train; what is no choice changes nothing."""
    visit.loop.length = name if name in LENGTHS else visit.loop.length


def estimate(visit: Visit, server: Server) -> None:
    """Predict all cases in the background, so that their effort is known.

    Raises:
        PromptsegError: Nothing was learned that could predict.
    """
    served = server.projects.of(visit)
    with served.opened(who_of(visit)) as project:
        if project.current == NONE:
            raise PromptsegError(visit.say("train_first"))
        left = len(unpredicted(project))
    served.ahead.failed.clear()
    if left:
        served.ahead.start(server.models, server.computing, most=left)
    visit.tell("estimating" if left else "estimated")


def train(visit: Visit, server: Server, length: dict[str, float] | None = None) -> None:
    """Train in the background.

    Args:
        visit: Whose.
        server: Offers the project.
        length: `steps` or `minutes`; what is chosen on the page if None.

    Raises:
        PromptsegError: A training runs, or there is nothing new to learn from.
    """
    served = server.projects.of(visit)
    with served.opened(who_of(visit)) as project:
        chosen = LENGTHS[visit.loop.length] if length is None else length
        served.training.start(project, server.models.device, chosen)
    visit.tell("training")


def stop_training(visit: Visit, server: Server) -> None:
    """Stop the training of this project; what it learned so far is kept."""
    server.projects.of(visit).training.stop()
    visit.tell("stopped")


def revert(visit: Visit, server: Server, number: int) -> None:
    """Use another version of the project.

    Raises:
        PromptsegError: There is no such version.
    """
    with server.projects.of(visit).opened(who_of(visit)) as project:
        project.revert(number)
    visit.tell("reverted", version=number)
