"""The cases of a project: next, accept, reject, revert, status."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptseg.active.loop.claims import expire_claims, status_before
from promptseg.active.loop.masks import accepted_labels
from promptseg.active.loop.store import Row, Store
from promptseg.adapters import Adapter, read_adapter
from promptseg.datasets.cohort import present_labels, read_image, read_labels
from promptseg.errors import FormatError
from promptseg.evaluate.metrics import revision_degree
from promptseg.volume import Segmentation, Volume

NONE = -1
HELD_EVERY = 4


@dataclass(frozen=True)
class Accepted:
    """What accepting a case recorded.

    Args:
        name: Of the case.
        revision: 100 (1 - Dice) of the prediction that was shown and the accepted mask, mean over
            the labels; None where nothing was predicted.
        seconds: From opening to accepting.
        held: True if the case is kept for measuring and never learned from.
    """

    name: str
    revision: float | None
    seconds: float | None
    held: bool


class Project:
    """A folder of cases that are looked at, corrected and learned from.

    Args:
        folder: Made by `make_project`.
        who: Of every change.

    Raises:
        FormatError: It is no project.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.folder, self.who = folder, who
        self.store = Store(folder)

    @property
    def labels(self) -> dict[int, str]:
        """Name by label."""
        return {int(k): str(v) for k, v in self.store.setting("labels").items()}

    @property
    def current(self) -> int:
        """Version of the adapter in use; `NONE` before the first."""
        return int(self.store.setting("current", NONE))

    def adapter(self, version: int | None = None) -> Adapter | None:
        """The adapter of a version, by default of the current one."""
        number = self.current if version is None else version
        return None if number == NONE else read_adapter(self.version_folder(number))

    def version_folder(self, number: int) -> Path:
        """Where a version lies, or will."""
        return self.folder / "versions" / f"{number:04d}"

    def case(self, name: str) -> Row:
        """A case.

        Raises:
            FormatError: There is none of that name.
        """
        rows = self.store.run("SELECT * FROM cases WHERE name = ?", (name,))
        if not rows:
            raise FormatError(f"there is no case {name!r}: see `promptseg loop status --cases`")
        return rows[0]

    def volume(self, name: str) -> Volume:
        """The image of a case."""
        return read_image(Path(self.case(name)["image"]))

    def open(self, name: str | None = None) -> str | None:
        """Take a case to look at: the one named, the one still open, or the first in order.

        Nobody else is given it meanwhile; a case that was opened long ago and not accepted goes
        back to the others.

        Returns:
            None if no case is left.

        Raises:
            FormatError: The case named is open with someone else.
        """
        with self.store.change():
            expire_claims(self.store, self.who)
            chosen = self._choose() if name is None else self._named(name)
            if chosen is None:
                return None
            if chosen["status"] != "open":
                self.store.run(
                    "UPDATE cases SET status = 'open', holder = ?, opened_at = ? WHERE name = ?",
                    (self.who, time.time(), chosen["name"]),
                )
                self.store.note(self.who, "open", chosen["name"])
        return str(chosen["name"])

    def _choose(self) -> Row | None:
        own = self.store.run(
            "SELECT * FROM cases WHERE status = 'open' AND holder = ? ORDER BY opened_at LIMIT 1",
            (self.who,),
        )
        if own:
            return own[0]
        fresh = self.store.run(
            "SELECT * FROM cases WHERE status = 'new' ORDER BY priority IS NULL, priority, name "
            "LIMIT 1"
        )
        return fresh[0] if fresh else None

    def _named(self, name: str) -> Row:
        found = self.case(name)
        if found["status"] == "open" and found["holder"] != self.who:
            raise FormatError(f"{name} is open with {found['holder']}: take another case")
        return found

    def accept(
        self,
        name: str,
        mask: Path | Segmentation,
        seconds: float | None = None,
        *,
        shown: Path | Segmentation | None = None,
        again: bool = False,
        empty: bool = False,
    ) -> Accepted:
        """Take a corrected mask; it is copied into the project.

        Args:
            name: Of the case.
            mask: File in any format that can be read, or labels in memory.
            seconds: Spent on it; by default since it was opened.
            shown: What was corrected, such as an answer to one's own prompts; by default the
                prediction of `next`.
            again: True to replace what was accepted before.
            empty: True to accept a mask without any label.

        Raises:
            FormatError: The mask does not fit the project, or the case is someone else's; nothing
                was changed.
            VolumeError: The mask's voxels are not the image's; the same.
        """
        volume = self.volume(name)
        labels = accepted_labels(mask, volume, name, self.labels)
        self._check_labels(name, labels, empty)
        self._check_free(name, again)
        begun = None if shown is None else accepted_labels(shown, volume, name, self.labels)
        kept = Segmentation.from_volume(volume, labels, labels=self.labels)
        path = self.folder / "masks" / f"{name}.{kept.sha256[:12]}.nii.gz"
        if not path.exists():
            kept.save(path)
        with self.store.change():
            # Asked again: someone else may have been quicker.
            case = self._check_free(name, again)
            predicted = self._predicted(name)
            if begun is None and predicted is not None:
                begun = read_labels(self.folder / predicted["mask"]).data
            revision = None if begun is None else _revision(begun, labels)
            spent = self._spent(case, seconds)
            # A case that was opened once more stays on the side where it was.
            known = status_before(self.store, name) == "accepted"
            held = bool(case["held"]) if known else self._holds_next()
            version = None if predicted is None else predicted["version"]
            self._record(name, path, kept.sha256, labels, version, revision, spent, held)
        return Accepted(name, revision, spent, held)

    def _record(
        self,
        name: str,
        path: Path,
        sha256: str,
        labels: np.ndarray,
        version: int | None,
        revision: float | None,
        seconds: float | None,
        held: bool,
    ) -> None:
        present = ",".join(map(str, present_labels(labels)))
        relative = str(path.relative_to(self.folder))
        self.store.run(
            "INSERT INTO accepted (name, who, at, mask, sha256, labels, version, revision, seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, self.who, time.time(), relative, sha256, present, version, revision, seconds),
        )
        self.store.run(
            "UPDATE cases SET status = 'accepted', holder = NULL, held = ? WHERE name = ?",
            (int(held), name),
        )
        self.store.note(self.who, "accept", name, sha256=sha256, revision=revision, held=held)

    def reject(self, name: str, reason: str) -> None:
        """Leave a case out, such as an unusable image.

        Raises:
            FormatError: There is none of that name, or it is someone else's.
        """
        with self.store.change():
            self._check_free(name, again=True)
            self.store.run(
                "UPDATE cases SET status = 'rejected', holder = NULL, held = 0 WHERE name = ?",
                (name,),
            )
            self.store.note(self.who, "reject", name, reason=reason)

    def revert(self, number: int) -> None:
        """Use an earlier version; those after it are kept.

        Raises:
            FormatError: There is no such version.
        """
        with self.store.change():
            known = [row["number"] for row in self.store.run("SELECT number FROM versions")]
            if number not in known:
                raise FormatError(f"there is no version {number}: there are {known or 'none yet'}")
            self.store.note(self.who, "revert", version=number, before=self.current)
            self.store.put("current", number)

    def latest(self, held: bool) -> list[Row]:
        """What was accepted last of every case, of those held back or of the others."""
        return self.store.run(
            "SELECT a.*, c.image FROM accepted a JOIN cases c ON c.name = a.name WHERE c.status = "
            "'accepted' AND c.held = ? AND a.id = (SELECT MAX(id) FROM accepted WHERE name = "
            "a.name) AND a.labels != '' ORDER BY a.name", (int(held),),
        )  # fmt: skip

    @property
    def unfinished(self) -> list[Row]:
        """Trainings that were begun and have given no version."""
        return self.store.run(
            "SELECT * FROM trainings WHERE version NOT IN (SELECT number FROM versions) "
            "ORDER BY version"
        )

    def _check_free(self, name: str, again: bool) -> Row:
        case = self.case(name)
        if case["status"] == "open" and case["holder"] != self.who:
            raise FormatError(f"{name} is open with {case['holder']}: take another case")
        if case["status"] == "accepted" and not again:
            last = self.store.run(
                "SELECT who FROM accepted WHERE name = ? ORDER BY id DESC LIMIT 1", (name,)
            )
            raise FormatError(
                f"{name} was accepted by {last[0]['who']}: give --again to replace it"
            )
        return case

    def _check_labels(self, name: str, labels: np.ndarray, empty: bool) -> None:
        present = present_labels(labels)
        unknown = [label for label in present if label not in self.labels]
        if unknown:
            known = ", ".join(f"{k} {v}" for k, v in self.labels.items())
            raise FormatError(f"the mask of {name} has labels {present}, the project knows {known}")
        if not present and not empty:
            raise FormatError(f"the mask of {name} is empty: give --empty if nothing is there")

    def _predicted(self, name: str) -> Row | None:
        """The prediction that was made last."""
        rows = self.store.run(
            "SELECT * FROM predictions WHERE name = ? ORDER BY rowid DESC LIMIT 1", (name,)
        )
        return rows[0] if rows else None

    @staticmethod
    def _spent(case: Row, seconds: float | None) -> float | None:
        if seconds is not None:
            return float(seconds)
        if case["status"] != "open" or case["opened_at"] is None:
            return None
        return time.time() - float(case["opened_at"])

    def _holds_next(self) -> bool:
        every = int(self.store.setting("held_every", HELD_EVERY))
        done = self.store.run("SELECT COUNT(*) AS n FROM cases WHERE status = 'accepted'")[0]["n"]
        return every > 0 and done % every == every - 1


def _revision(before: np.ndarray, labels: np.ndarray) -> float:
    """Mean revision degree over the labels of either mask, in percent."""
    either = sorted({*present_labels(before), *present_labels(labels)})
    degrees = [revision_degree(before == n, labels == n) for n in either]
    return float(np.mean(degrees)) if degrees else 0.0
