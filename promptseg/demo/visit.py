"""What one visitor has open: image, prompts, masks, and how they are looked at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.demo.case_state import Case, LoopState
from promptseg.demo.note_texts import sentence
from promptseg.demo.texts import Language, say
from promptseg.demo.visit_parts import BYTES_PER_VOXEL, Earlier, Sketch, Trial, Waiting
from promptseg.errors import PromptsegError
from promptseg.prompts.types import PromptSet

if TYPE_CHECKING:
    from promptseg.session import Segmenter, Session
    from promptseg.volume import Volume

# Texts of the status line that speak of the latest answer.
OF_ANSWERS = frozenset({
    "answered", "sketched", "propagated", "refined", "chosen_again", "windowed_again", "taken_up",
    "undone", "redone",
})  # fmt: skip
COLOURS = ("#26c6da", "#ff7043", "#9ccc65", "#ab82ff", "#ffca28", "#ec64a0")
"""Colours of new targets, in order; they start again after the last."""


class BusyError(PromptsegError, RuntimeError):
    """The visitor's last request is still being computed."""


class CancelledError(PromptsegError, RuntimeError):
    """The visitor, or their leaving, stopped the computation."""


@dataclass
class Target:
    """How one target is shown; `named_at` is when its present name was typed."""

    name: str
    colour: str
    named_at: float = 0.0


@dataclass
class View:
    """What is on the screen.

    Args:
        axis: Voxel axis of the slices shown.
        indices: Slice shown along each voxel axis.
        preset: Window by name, or `custom` once the limits were moved.
        low: Grey value shown black.
        high: Grey value shown white.
        opacity: Of the masks, in [0, 1].
        doubt: True to show the uncertainty.
    """

    axis: int = 2
    indices: list[int] = field(default_factory=lambda: [0, 0, 0])
    preset: str = "auto"
    low: float = 0.0
    high: float = 1.0
    opacity: float = 0.35
    doubt: bool = False


@dataclass
class Visit:
    """Everything that belongs to one visitor and to nobody else.

    Args:
        key: Of the browser tab or the client.
        ident: Unguessable name by which the page asks whether the visit is still held.
        secret: Of the browser tab, the same after a reload; work is kept under it.
        secrets: That and those of tabs of the same browser before.
        ended: True if the page knew an earlier visit that is gone.
        left: True once the browser tab was closed or reloaded.
        work_id: Of the work since the image was opened, as a file is named.
        kept: What stands on disk, to write nothing twice.
        language: Of the page.
        model: Name or path.
        adapter: Name or None.
        model_window: Window that the model sees, as `Session` takes it.
        volume: The image.
        name: What it is called.
        segmenter: The network, with embeddings of this visit alone.
        session: Prompts and answers; None before the first prompt.
        own_network: True once the network is not shared with other visits.
        view: What is on the screen.
        targets: By label.
        active: Label that new prompts are for.
        answered: How many prompts the labels stand for.
        propagated: True if the labels are 3D.
        labels: (I, J, K) masks; None before the first answer.
        uncertainty: (I, J, K) in [0, 1] or None.
        session_axis: Axis that the session was started with.
        used_axis: Axis along which it took its slices in the latest answer.
        preview: By slice along that axis the number of corrections that are not taken up yet,
            and the (rows, columns) labels that they would give.
        sketch: How far the targets seem to reach before they are propagated; None for unknown.
        trial: What Refine will do with the corrections that wait.
        undone: For each undone step whether the labels stood for it.
        before: What Clear, Open and choices of a model replaced, oldest first.
        after: The same, of what was undone.
        post: Steps of post-processing that are done to every answer.
        checked: Slices that were suggested for checking since the labels changed.
        unsaved: True if prompts or masks are newer than the latest download of the masks.
        waiting: An upload of which a series must be chosen.
        case: A project's case that is open; None for any other image.
        loop: What the visit holds of projects beside it.
        mask_format: Of masks that are downloaded, as `mask_formats` names them.
        folders: Files made for download, oldest first; removed with the visit.
        reserved: Bytes that were set aside for the image.
        notes: What should be known of the latest answer, sentences of its report.
        message: Kind (`info` or `error`) and text.
        told: Which text that is, and its values.
    """

    key: str
    ident: str = field(default_factory=lambda: token_hex(16))
    secret: str = ""
    secrets: tuple[str, ...] = ()
    ended: bool = False
    left: bool = False
    work_id: str = field(default_factory=lambda: token_hex(8))
    kept: tuple[object, ...] = ()
    language: Language = "en"
    model: str = "default"
    adapter: str | None = None
    model_window: str = "auto"
    volume: Volume | None = None
    name: str = ""
    segmenter: Segmenter | None = None
    session: Session | None = None
    own_network: bool = False
    view: View = field(default_factory=View)
    targets: dict[int, Target] = field(default_factory=dict)
    active: int = 1
    answered: int = 0
    propagated: bool = False
    labels: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    scores: dict[int, float] = field(default_factory=dict)
    session_axis: int | str = "auto"
    used_axis: int | None = None
    preview: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    sketch: Sketch | None = None
    trial: Trial | None = None
    undone: list[bool] = field(default_factory=list)
    before: list[Earlier] = field(default_factory=list)
    after: list[Earlier] = field(default_factory=list)
    checked: list[tuple[int, int, int]] = field(default_factory=list)
    unsaved: bool = False
    waiting: Waiting | None = None
    case: Case | None = None
    loop: LoopState = field(default_factory=LoopState)
    mask_format: str = ".nii.gz"
    post: tuple[str, ...] = ()
    folders: list[Path] = field(default_factory=list)
    reserved: int = 0
    notes: tuple[str, ...] = ()
    message: tuple[str, str] = ("info", "")
    told: tuple[str, dict[str, Any]] | None = None
    version: int = 0
    last_used: float = field(default_factory=monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)
    long_running: bool = False
    busy: bool = False

    def __post_init__(self) -> None:
        if not self.targets:
            self.targets[1] = Target(self.say("target", number=1), COLOURS[0])
        if not self.message[1]:
            self.tell("welcome")

    def say(self, key: str, **values: object) -> str:
        """A text in the visitor's language."""
        return say(self.language, key, **values)

    def tell(self, key: str, **values: object) -> None:
        """Put a text on the status line, with what the answer has to say if the text is of one."""
        notes = self.notes if key in OF_ANSWERS else ()
        sentences = (sentence(note, self.language) for note in notes)
        self.message = "info", " ".join([self.say(key, **values), *sentences])
        self.told = key, values

    def refuse(self, key: str, **values: object) -> None:
        """Put an error on the status line."""
        self.message, self.told = ("error", self.say(key, **values)), None

    def speak(self, language: Language) -> None:
        """Go on in another language; what was named by a person keeps its name."""
        for label, target in self.targets.items():
            if target.name == self.say("target", number=label):
                target.name = say(language, "target", number=label)
        self.language = language
        if self.told is not None and self.message[0] == "info":
            self.tell(self.told[0], **self.told[1])

    @property
    def prompts(self) -> PromptSet:
        """All prompts so far."""
        return PromptSet() if self.session is None else self.session.prompts

    @property
    def pending(self) -> int:
        """Prompts that the labels do not stand for yet."""
        return len(self.prompts) - self.answered

    @property
    def nbytes(self) -> int:
        """Memory that the image and what is computed from it may take."""
        aside = sum(one.nbytes(self.volume) for one in self.before) + self.loop.nbytes
        if self.volume is None:
            return self.reserved + aside
        needed = self.volume.data.nbytes + BYTES_PER_VOXEL * self.volume.data.size
        return max(self.reserved, needed) + aside

    @property
    def worked(self) -> bool:
        """True if there are prompts or masks that could be lost."""
        return self.labels is not None or len(self.prompts) > 0

    def opened(self) -> Volume:
        """The image; PromptsegError if there is none."""
        if self.volume is None:
            raise PromptsegError(self.say("open_first"))
        return self.volume

    def forget_answer(self) -> None:
        """Drop masks and previews; prompts stay."""
        self.labels = self.uncertainty = None
        self.scores, self.preview, self.trial, self.sketch = {}, {}, None, None
        self.answered, self.propagated, self.used_axis = 0, False, None
        self.checked, self.notes = [], ()
        self.view.doubt = False

    @contextmanager
    def exclusive(self, long_running: bool = False) -> Iterator[None]:
        """Compute alone; refuse while a propagation of the same visitor runs.

        Raises:
            BusyError: It runs.
        """
        if self.long_running:
            raise BusyError(self.say("busy"))
        with self.lock:
            self.long_running = long_running
            if long_running:
                self.cancel.clear()
            self.busy = True
            try:
                yield
            finally:
                self.busy = self.long_running = False
                self.last_used = monotonic()
