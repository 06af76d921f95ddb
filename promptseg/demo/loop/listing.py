"""The worklist, the versions and the training curve as the tab shows them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from html import escape
from typing import Any

from promptseg.active.loop.project import NONE, Project
from promptseg.active.loop.store import Row
from promptseg.demo.cases.background import Curve, curve_of
from promptseg.demo.cases.drafts import drafts_of, is_by, written_at
from promptseg.demo.cases.projects import Served, who_of
from promptseg.demo.loop.arriving import clock
from promptseg.demo.loop.finishing import spent_text
from promptseg.demo.server import Server
from promptseg.demo.uploads import without_folders
from promptseg.demo.visit import Visit
from promptseg.errors import PromptsegError

ORDER = {"mine": 0, "open": 1, "new": 2, "accepted": 3, "rejected": 4}
WIDTH, HEIGHT = 268, 96
"""Of the curve, in pixels."""
CASES = """
SELECT c.*, a.who, a.revision, a.seconds, a.at, p.score
FROM cases c
LEFT JOIN accepted a ON a.id = (SELECT MAX(id) FROM accepted WHERE name = c.name)
LEFT JOIN predictions p ON p.rowid = (SELECT MAX(rowid) FROM predictions WHERE name = c.name)
ORDER BY c.priority IS NULL, c.priority, c.name
"""


def worklist_html(visit: Visit, server: Server) -> str:
    """Every case with its status and how much work it is, those to do first."""
    if not len(server.projects):
        return f"<p class='pk-none'>{escape(visit.say('no_projects'))}</p>"
    served = server.projects.of(visit)
    with served.opened(who_of(visit)) as project:
        rows = project.store.run(CASES)
        shown = [(_kind(row, project.who), row) for row in rows]
        shown.sort(key=lambda one: ORDER[one[0]])
        head = _head(visit, project, shown)
        lines = "".join(_line(visit, served, project, kind, row) for kind, row in shown)
    titles = ("column_case", "column_status", "column_revision", "column_time")
    columns = "".join(f"<th scope='col'>{escape(visit.say(key))}</th>" for key in titles)
    return (
        f"<p class='pk-head'>{head}</p><div class='pk-scroll'><table>"
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _kind(row: Row, who: str) -> str:
    mine = row["status"] == "open" and row["holder"] == who
    return "mine" if mine else str(row["status"])


def _head(visit: Visit, project: Project, shown: list[tuple[str, Row]]) -> str:
    """How many there are of each, and how much they had to be revised."""
    counts = dict.fromkeys(("new", "open", "accepted", "rejected"), 0)
    for _, row in shown:
        counts[row["status"]] += 1
    organ = escape(str(project.store.setting("organ")))
    text = f"<b>{organ}</b> {escape(visit.say('counts', **counts))}"
    done = [row for _, row in shown if row["status"] == "accepted"]
    revised = [float(row["revision"]) for row in done if row["revision"] is not None]
    spent = [float(row["seconds"]) for row in done if row["seconds"] is not None]
    if not revised or not spent:
        return text
    mean = visit.say(
        "mean_effort", revision=sum(revised) / len(revised),
        spent=spent_text(visit, sum(spent) / len(spent)),
    )  # fmt: skip
    return f"{text} · {escape(mean)}"


def _line(visit: Visit, served: Served, project: Project, kind: str, row: Row) -> str:
    name = str(row["name"])
    here = visit.case is not None and (visit.case.project, visit.case.name) == (served.name, name)
    status, marks = _status(visit, kind, row), _marks(visit, served, project, kind, row)
    notes = "".join(f"<em>{escape(one)}</em>" for one in marks)
    able = "disabled" if kind == "open" else f"data-case='{escape(name, quote=True)}'"
    return (
        f"<tr class='pk-{kind}' {'aria-current=true' if here else ''}>"
        f"<td><button type='button' {able} title='{escape(name, quote=True)}'>"
        f"{escape(name)}</button></td><td><span>{escape(status)}</span>{notes}</td>"
        f"<td>{_effort(visit, kind, row)}</td><td>{escape(_time(visit, kind, row))}</td></tr>"
    )


def _status(visit: Visit, kind: str, row: Row) -> str:
    if kind == "open":
        when = clock(float(row["opened_at"] or 0.0))
        return visit.say("status_open", who=row["holder"], when=when)
    return visit.say(f"status_{kind}", who=row["who"])


def _marks(visit: Visit, served: Served, project: Project, kind: str, row: Row) -> Iterable[str]:
    """What else is to be known of a case: it measures, it was begun, it cannot be predicted."""
    name = str(row["name"])
    if kind == "accepted" and row["held"]:
        yield visit.say("is_held")
    if kind in ("mine", "new"):
        for path in drafts_of(served.folder, name)[:1]:
            key = "draft_mine" if is_by(path, project.who) else "draft_other"
            yield visit.say(key, when=clock(written_at(path)))
    if kind == "new" and row["reason"]:
        yield str(row["reason"])
    if name in served.ahead.failed:
        yield visit.say("prediction_failed", error=without_folders(served.ahead.failed[name]))


def _effort(visit: Visit, kind: str, row: Row) -> str:
    """The revision of an accepted case, the one to expect of the others, as a bar and a number."""
    if kind == "accepted":
        known = None if row["revision"] is None else float(row["revision"])
        text = "" if known is None else visit.say("revised_by", revision=known)
    else:
        known = None if row["score"] is None else 100 * (1 - float(row["score"]))
        text = "" if known is None else visit.say("expected_at", effort=known)
    if known is None or kind == "rejected":
        return ""
    width = min(100.0, max(2.0, known))
    return f"<i><b style='width:{width:.0f}%'></b></i><span>{escape(text)}</span>"


def _time(visit: Visit, kind: str, row: Row) -> str:
    if kind != "accepted" or row["seconds"] is None:
        return ""
    return spent_text(visit, float(row["seconds"]))


def versions_html(visit: Visit, server: Server) -> str:
    """Training, its curve, and every version with the way back to it."""
    if not len(server.projects):
        return ""
    served = server.projects.of(visit)
    with served.opened(who_of(visit)) as project:
        curve, current = curve_of(project), project.current
        rows = project.store.run("SELECT * FROM versions ORDER BY number DESC")
        unfinished = bool(project.unfinished)
    lines = "".join(_version(visit, row, current) for row in rows)
    listed = lines or f"<p>{escape(visit.say('no_version'))}</p>"
    return (
        f"{_curve(visit, served, curve, unfinished)}"
        f"<p class='ps-label'>{escape(visit.say('versions'))}</p><div class='pk-versions'>"
        f"{listed}</div>"
    )


def _version(visit: Visit, row: Row, current: int) -> str:
    number = int(row["number"])
    if row["dice"] is not None:
        measured = f"Dice {row['dice']:.3f}"
        if row["dice_before"] is not None:
            measured += f" ({row['dice'] - row['dice_before']:+.3f})"
    else:
        measured = visit.say("version_start" if number == 0 else "not_measured")
    used = number == current and current != NONE
    if used:
        end = f"<strong>{escape(visit.say('in_use'))}</strong>"
    else:
        why = "" if row["kept"] else f"<em>{escape(visit.say('not_better'))}</em>"
        use = escape(visit.say("use_it"))
        end = f"{why}<button type='button' data-version='{number}'>{use}</button>"
    title = escape(visit.say("version", number=number))
    return f"<div><b>{title}</b><span>{escape(measured)}</span>{end}</div>"


def _curve(visit: Visit, served: Served, curve: Curve | None, unfinished: bool) -> str:
    """The loss by step, and what is going on."""
    if curve is None:
        return _failure(visit, served)
    title = visit.say("curve", version=curve.version)
    state = _training_state(visit, served, curve, unfinished)
    bar = ""
    if unfinished:
        share = round(100 * curve.done)
        bar = f"<progress max='100' value='{share}' aria-label='{escape(title)}'></progress>"
    return (
        f"<figure><figcaption>{escape(title)}<span>{escape(state)}</span></figcaption>"
        f"{_plot(curve.points)}{bar}</figure>{_failure(visit, served)}"
    )


def _failure(visit: Visit, served: Served) -> str:
    failure = without_folders(served.training.failure)
    return (
        f"<p class='pk-bad'>{escape(visit.say('curve_failed', error=failure))}</p>"
        if failure
        else ""
    )


def _training_state(visit: Visit, served: Served, curve: Curve, unfinished: bool) -> str:
    running = served.training.running
    if unfinished and not running and not served.training.elsewhere:
        return visit.say("curve_interrupted")
    if unfinished and curve.done >= 1:
        return visit.say("curve_ends")
    if not curve.points:
        return visit.say("curve_begins") if unfinished else ""
    step, loss = curve.points[-1]
    return visit.say("curve_loss", step=step, loss=loss)


def _plot(points: tuple[tuple[int, float], ...]) -> str:
    """A line of the losses, the axis of steps from the first to the last."""
    if len(points) < 2:
        return ""
    steps, losses = [p[0] for p in points], [p[1] for p in points]
    low, high = min(losses), max(losses)
    across = WIDTH / max(1, steps[-1] - steps[0])
    down = (HEIGHT - 22) / max(high - low, 1e-9)
    line = " ".join(f"{(s - steps[0]) * across:.1f},{5 + (high - v) * down:.1f}" for s, v in points)
    ends: list[Any] = [(0, "start", steps[0]), (WIDTH, "end", steps[-1])]
    ticks = "".join(
        f"<text x='{x}' y='{HEIGHT - 3}' text-anchor='{anchor}'>{text}</text>"
        for x, anchor, text in ends
    )
    values = (
        f"<text x='{WIDTH}' y='11' text-anchor='end'>{high:.3g}</text>"
        f"<text x='{WIDTH}' y='{HEIGHT - 20}' text-anchor='end'>{low:.3g}</text>"
    )
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'><line x1='0' x2='{WIDTH}' "
        f"y1='{HEIGHT - 15}' y2='{HEIGHT - 15}'/><polyline points='{line}'/>{ticks}{values}</svg>"
    )


def lessons_html(visit: Visit) -> str:
    """How many cases of this visit were learned from, and how many wait."""
    loop = visit.loop
    text = visit.say("lessons", learned=len(loop.learned), waiting=len(loop.waiting))
    return f"<p class='pk-lessons'>{escape(text)}</p>"


PARTS = {"worklist": worklist_html, "versions": versions_html}


def listed(visit: Visit, server: Server, part: str) -> str:
    """One part of the tab; a project that cannot be read is said there and hinders nothing else."""
    try:
        return PARTS[part](visit, server)
    except (PromptsegError, sqlite3.Error) as error:
        return f"<p class='pk-bad'>{escape(server.shown(error))}</p>"


def case_html(visit: Visit) -> str:
    """The case that is open, in the bar over the picture."""
    case = visit.case
    if case is None:
        return ""
    effort = "" if case.effort is None else escape(
        f"{visit.say('expected')} {visit.say('expected_at', effort=case.effort)}"
    )  # fmt: skip
    name = escape(case.name, quote=True)
    return f"<b title='{name}'>{name}</b><span>{effort or escape(case.project)}</span>"
