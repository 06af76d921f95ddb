"""The cases of a project for programs, through `gradio_client`; see `promptseg.demo.api`.

    client.predict("", "ann", "", api_name="/case_open")           # the next one
    client.predict([90, 80, 46], False, 1, api_name="/add_point")
    client.predict("graph_cut", api_name="/refine")
    client.predict(api_name="/case_accept")

| endpoint | arguments | gives |
|---|---|---|
| /case_open | case ("" for the next), who ("" for this machine's user), project | state |
| /case_accept, /case_release | | state |
| /case_reject | reason | state |
| /cases | project | counts, versions and every case, as `promptseg loop status --json` |
| /learn | | state: learned from what this client accepted |
| /train | project, steps | starts in the background; `/cases` says how it stands |
| /revert | project, version | `/cases` |

A project is named as on the page, "" for the one used last or the first.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptseg.active.loop.making import status
from promptseg.demo.api import act, publish
from promptseg.demo.cases.background import curve_of
from promptseg.demo.cases.projects import who_of
from promptseg.demo.loop import working
from promptseg.demo.loop.finishing import give_back_case, reject_case
from promptseg.demo.loop.learning import learn_from_visit
from promptseg.demo.loop.opening import open_case
from promptseg.demo.screen import LONG, QUICK
from promptseg.demo.server import Server
from promptseg.demo.visit import Visit


def add_case_api(server: Server) -> None:
    """Add the endpoints to the current `gr.Blocks`."""
    _add_cases(server)
    _add_learning(server)


def _add_cases(server: Server) -> None:
    def case_open(case: str, who: str, project: str, request: gr.Request) -> dict:
        """Open a case with its prediction, or with unfinished work on it."""

        def work(visit: Visit) -> None:
            _introduce(visit, request, who)
            if project:
                working.choose_project(visit, server, project)
            open_case(visit, server, case or None)

        return act(server, request, work, True)

    def case_accept(request: gr.Request) -> dict:
        """Accept the masks of the open case."""
        return act(server, request, lambda visit: working.accept(visit, server), True)

    def case_reject(reason: str, request: gr.Request) -> dict:
        """Leave the open case out."""
        return act(server, request, lambda visit: reject_case(visit, server, reason))

    def case_release(request: gr.Request) -> dict:
        """Give the open case back to the others."""
        return act(server, request, lambda visit: give_back_case(visit, server))

    publish(case_open, LONG)
    publish(case_accept, LONG)
    publish(case_reject, QUICK)
    publish(case_release, QUICK)


def _add_learning(server: Server) -> None:
    def cases(project: str, request: gr.Request) -> dict:
        """How a project stands."""
        visit = server.visits.of(request.session_hash)
        act(server, request, lambda one: _choose(one, server, project))
        return status_of(visit, server)

    def learn(request: gr.Request) -> dict:
        """Learn from what this client accepted, for its next images."""
        return act(server, request, lambda visit: learn_from_visit(visit, server), True)

    def train(project: str, steps: int, request: gr.Request) -> dict:
        """Train in the background."""

        def work(visit: Visit) -> None:
            _choose(visit, server, project)
            working.train(visit, server, {"steps": steps})

        act(server, request, work)
        return status_of(server.visits.of(request.session_hash), server)

    def revert(project: str, version: int, request: gr.Request) -> dict:
        """Use another version of a project."""

        def work(visit: Visit) -> None:
            _choose(visit, server, project)
            working.revert(visit, server, version)

        act(server, request, work)
        return status_of(server.visits.of(request.session_hash), server)

    publish(learn, LONG)
    for work in (cases, train, revert):
        publish(work, QUICK)


def _introduce(visit: Visit, request: gr.Request, who: str) -> None:
    visit.loop.login = str(request.username or "")
    visit.loop.who = who.strip()[:60] or visit.loop.who


def _choose(visit: Visit, server: Server, project: str) -> None:
    if project:
        working.choose_project(visit, server, project)
    server.projects.of(visit)


def status_of(visit: Visit, server: Server) -> dict[str, Any]:
    """Counts, versions, every case, and the training as it stands; no path of the server."""
    served = server.projects.of(visit)
    with served.opened(who_of(visit)) as project:
        found, curve = status(project), curve_of(project)
        rows = project.store.run("SELECT name, status FROM cases ORDER BY name")
    found["list"] = {row["name"]: row["status"] for row in rows}
    found["accepted"] = [{k: v for k, v in row.items() if k != "mask"} for row in found["accepted"]]
    found["versions"] = [
        {k: v for k, v in row.items() if k not in ("folder", "cases")} for row in found["versions"]
    ]
    found["training"] = None if curve is None else {
        "version": curve.version, "share": curve.done, "losses": [list(p) for p in curve.points],
        "running": served.training.running, "failure": server.shown(
            RuntimeError(served.training.failure)),
    }  # fmt: skip
    return found
