"""How a case comes on the screen: its image, its prediction, or unfinished work on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptseg.active.loop.claims import status_before
from promptseg.active.loop.project import Project
from promptseg.active.loop.showing import Shown, predict_case, use_version
from promptseg.datasets.cohort import read_labels
from promptseg.demo.actions import propagate
from promptseg.demo.answers import network_for, put_masks, stoppable
from promptseg.demo.case_state import Case
from promptseg.demo.cases.drafts import draft_path, drafts_of, is_by, written_at
from promptseg.demo.cases.projects import Served
from promptseg.demo.keeping import mark
from promptseg.demo.looking import close_image, open_volume, show_slice
from promptseg.demo.resuming import restore
from promptseg.demo.setting_aside import setting_aside
from promptseg.demo.visit import COLOURS, CancelledError, Target, Visit
from promptseg.demo.work_file import Work, read_work
from promptseg.errors import AdapterError, FormatError, PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.predictor.lessons import LEARNED
from promptseg.volume import Volume

if TYPE_CHECKING:
    from promptseg.demo.server import Server
    from promptseg.session import Segmenter


@dataclass(frozen=True)
class Arrival:
    """A case that is being opened.

    Args:
        visit: Whose.
        server: Loads networks.
        served: The project that is offered.
        project: The same, open for the visitor.
        name: Of the case.
        progress: Called with stage, done, total.
    """

    visit: Visit
    server: Server
    served: Served
    project: Project
    name: str
    progress: Progress | None

    def show(self, afresh: bool) -> None:
        """Open the image with own unfinished work, what was accepted before, or a prediction.

        Args:
            afresh: True for a prediction whatever else there is.
        """
        visit, aside = self.visit, self.visit.before[-1:]
        try:
            volume = self.project.volume(self.name)
        except PromptsegError as error:
            self._have_no_image(self.server.shown(error))
            return
        drafts = drafts_of(self.served.folder, self.name)
        own = [path for path in drafts if is_by(path, self.project.who)]
        others = [path for path in drafts if path not in own]
        work = None if afresh else _fitting(own, volume)
        known = None if afresh else self._accepted()
        if work is not None:
            self._open(volume, Shown(self.name, ""), others)
            self._take_up(work, own[0])
        elif known is not None:
            self._open(volume, Shown(self.name, ""), others)
            self._take_version(self.project.current)
            begin_with(visit, known)
            visit.tell("case_again", case=self.name)
        else:
            self._predict(volume, others)
        if visit.before[-1:] != aside:
            # The prediction is no step of its own: Undo goes back to what was open before.
            visit.before[-1] = replace(visit.before[-1], steps=len(visit.prompts))
        if others:
            kind, told = visit.message
            when = clock(written_at(others[0]))
            visit.message = kind, told + visit.say("case_others", when=when)
        visit.unsaved, visit.kept = False, mark(visit)

    def _have_no_image(self, why: str) -> None:
        """An image that cannot be read is open all the same, so that it can be rejected."""
        visit = self.visit
        with setting_aside(visit):
            close_image(visit)
        visit.case = self._case(Shown(self.name, ""), [], 0.0)
        visit.refuse("case_unreadable", case=self.name, error=why)

    def _predict(self, volume: Volume, others: Sequence[Path]) -> None:
        """By what was learned in the visit, if that is in use, else by the project's version."""
        if learns(self.visit, self.served.model):
            self._open(volume, Shown(self.name, ""), others)
            predict_with_pupil(self.visit, self.server, self.progress)
            return
        with self.served.network(self.server.models) as segmenter:
            stop = stoppable(self.visit, self.progress)
            shown = predict_case(self.project, segmenter, self.name, stop)
        self._open(volume, shown, others)
        self._take_version(shown.version)
        _show_prediction(self.visit, shown)

    def _take_version(self, version: int | None) -> None:
        """Corrections are answered by the version that predicted the case."""
        own = self._network_of(version)
        if own is not None:
            self.visit.segmenter, self.visit.own_network = own, True

    def _network_of(self, version: int | None) -> Segmenter | None:
        """A network for this visit alone, with a version in use; None where there is none.

        A version that was made for earlier weights of the base does not fit: its predictions are
        corrected with the base.
        """
        if version is None or self.project.adapter(version) is None:
            return None
        own = self.server.models.own(self.served.model, None)
        try:
            use_version(self.project, own, version)
        except AdapterError:
            return None
        return own

    def _open(self, volume: Volume, shown: Shown, others: Sequence[Path]) -> None:
        """The image with the project's targets and base; what else was open can be undone to."""
        visit, case = self.visit, self.visit.case
        again = case is not None and (case.project, case.name) == (self.served.name, self.name)
        spent = case.spent if case is not None and again else 0.0
        open_volume(visit, volume, self.name, self.server.visits)
        visit.model = self.served.model
        learned = learns(visit, self.served.model)
        visit.adapter = LEARNED if learned else None
        visit.segmenter = network_for(visit, self.server.models, visit.model, visit.adapter)
        visit.own_network = learned
        visit.targets = {
            label: Target(words, COLOURS[(label - 1) % len(COLOURS)])
            for label, words in sorted(self.project.labels.items())
        }
        visit.active = min(visit.targets)
        visit.case = self._case(shown, others, spent)

    def _case(self, shown: Shown, others: Sequence[Path], spent: float) -> Case:
        who, secret = self.project.who, self.visit.secret
        return Case(
            project=self.served.name,
            name=self.name,
            who=who,
            draft=draft_path(self.served.folder, self.name, who, secret),
            version=shown.version,
            effort=shown.effort,
            spent=spent,
            other=others[0] if others else None,
        )

    def _take_up(self, work: Work, path: Path) -> None:
        visit, case = self.visit, self.visit.case
        before = list(visit.before)
        own = self._network_of(work.predicted)
        restore(visit, self.server.models, work, self.progress, own)
        # The empty image before it is nothing to go back to.
        visit.before = before
        if case is not None:
            case.spent, case.version = work.spent, work.predicted
        visit.tell("case_back", case=self.name, when=clock(written_at(path)))

    def _accepted(self) -> np.ndarray | None:
        """The mask that was accepted last, of a case that was opened once more."""
        if status_before(self.project.store, self.name) != "accepted":
            return None
        rows = self.project.store.run(
            "SELECT mask FROM accepted WHERE name = ? ORDER BY id DESC LIMIT 1", (self.name,)
        )
        return read_labels(self.project.folder / rows[0]["mask"]).data if rows else None


def learns(visit: Visit, model: str) -> bool:
    """True if images are answered by what was learned in the visit."""
    return visit.loop.use and visit.loop.model == model


def predict_with_pupil(visit: Visit, server: Server, progress: Progress | None = None) -> None:
    """Show what was learned in this visit says of the case that is open."""
    try:
        propagate(visit, server.models, progress)
    except CancelledError:
        visit.tell("cancelled")
        return
    if visit.case is not None and visit.labels is not None:
        visit.case.begun, visit.case.version = visit.labels.copy(), None
        visit.case.effort = None
        visit.tell("case_learned", case=visit.case.name)
    visit.unsaved, visit.kept = False, mark(visit)


def begin_with(visit: Visit, labels: np.ndarray) -> None:
    """Begin with masks that are there."""
    put_masks(visit, labels)
    # Their quality as prompts is 1, which says nothing.
    visit.scores = {}


def clock(at: float) -> str:
    """A time of today as a clock shows it, an earlier one with its day."""
    moment, now = datetime.fromtimestamp(at), datetime.now()
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%d.%m. %H:%M")


def _fitting(drafts: Sequence[Path], volume: Volume) -> Work | None:
    """The newest work, unless it is damaged or the image was replaced since."""
    try:
        work = read_work(drafts[0]) if drafts else None
    except FormatError:
        return None
    return work if work is not None and work.fits(volume) else None


def _show_prediction(visit: Visit, shown: Shown) -> None:
    if shown.mask is None or shown.version is None:
        visit.tell("case_bare", case=shown.name)
        return
    if shown.axis is not None:
        visit.session_axis = shown.axis
    begin_with(visit, read_labels(Path(shown.mask)).data)
    if shown.axis is not None and shown.slice is not None:
        visit.view.axis = shown.axis
        show_slice(visit, shown.slice)
    visit.tell(
        "case_opened", case=shown.name, version=shown.version, effort=shown.effort or 0.0,
        reason=shown.reason or "",
    )  # fmt: skip
