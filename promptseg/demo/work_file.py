"""The work of a visit as a file: prompts, masks, targets and choices, without the image."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.demo.visit import Visit
from promptseg.errors import FormatError, PromptError
from promptseg.io.atomic import atomic_path
from promptseg.prompts.types import PromptSet
from promptseg.volume import Volume, bounding_slices, pasted

FORMAT = "promptseg-work"
VERSION = 1
SUFFIX = ".session"
MOST_BYTES = 4 << 30
"""Unpacked: labels of a whole-body CT at 16 bits; a file that holds more is refused unread."""


@dataclass(frozen=True)
class Work:
    """What a visitor did on one image.

    Args:
        name: Of the image.
        sha256: Of the image's voxels and affine.
        shape: (I, J, K) of the image.
        saved: Time in UTC, ISO 8601.
        model: Name.
        adapter: Name or None.
        model_window: As `Visit.model_window`.
        session_axis: As `Visit.session_axis`.
        propagated: As `Visit.propagated`.
        answered: Prompts that the labels stand for.
        active: Label that new prompts are for.
        targets: Name and colour by label.
        axis: Voxel axis of the slices shown.
        indices: Slice shown along each voxel axis.
        prompts: All of them.
        labels: (I, J, K) masks or None.
        case: Project and name, where it is a project's case.
        who: Had that case open.
        spent: Seconds of work on it.
        predicted: Version of the project's adapter that made the prediction.
    """

    name: str
    sha256: str
    shape: tuple[int, ...]
    saved: str
    model: str
    adapter: str | None
    model_window: str
    session_axis: int | str
    propagated: bool
    answered: int
    active: int
    targets: dict[int, tuple[str, str]]
    axis: int
    indices: tuple[int, ...]
    prompts: PromptSet = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    case: tuple[str, str] | None = None
    who: str = ""
    spent: float = 0.0
    predicted: int | None = None

    def fits(self, volume: Volume) -> bool:
        """True if it was done on this image."""
        return self.shape == volume.shape and self.sha256 == volume.sha256


def work_of(visit: Visit) -> Work:
    """The work of a visit that has an image open."""
    volume, case = visit.opened(), visit.case
    of_case: dict[str, Any] = {} if case is None else {
        "case": (case.project, case.name),
        "who": case.who,
        "spent": round(case.spent, 1),
        "predicted": case.version,
    }  # fmt: skip
    return Work(
        name=visit.name,
        sha256=volume.sha256,
        shape=tuple(volume.shape),
        saved=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=visit.model,
        adapter=visit.adapter,
        model_window=visit.model_window,
        session_axis=visit.session_axis,
        propagated=visit.propagated,
        answered=visit.answered,
        active=visit.active,
        targets={label: (t.name, t.colour) for label, t in visit.targets.items()},
        axis=visit.view.axis,
        indices=tuple(visit.view.indices),
        prompts=visit.prompts,
        labels=visit.labels,
        **of_case,
    )


def write_work(work: Work, path: Path) -> None:
    """Write a work file, all of it or nothing."""
    record = {key: value for key, value in vars(work).items() if key not in ("prompts", "labels")}
    record |= {"format": FORMAT, "version": VERSION, "prompts": work.prompts.to_dict()}
    arrays = {"record": np.frombuffer(json.dumps(record).encode(), np.uint8)}
    if work.labels is not None:
        box = bounding_slices(work.labels > 0) or (slice(0, 0),) * 3
        arrays["corner"] = np.array([side.start for side in box])
        arrays["labels"] = work.labels[box].astype(np.uint16)
    with atomic_path(path) as temporary, temporary.open("wb") as sink:
        np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]


def read_work(path: Path) -> Work:
    """Read a work file.

    Raises:
        FormatError: It is none, damaged, too large or of another version.
    """
    try:
        arrays = _arrays(path)
        record = json.loads(arrays["record"].tobytes())
        if record.pop("format") != FORMAT or record.pop("version") != VERSION:
            raise ValueError("another format or version")
        return _work(record, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError,
            zipfile.BadZipFile, PromptError) as error:  # fmt: skip
        raise FormatError(f"{path.name}: not a session file of this page: {error}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > MOST_BYTES:
        raise ValueError(f"it unpacks to {total} bytes, the limit is {MOST_BYTES}")
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in ("record", "corner", "labels") if name in held}


def _work(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Work:
    shape = tuple(int(side) for side in record["shape"])
    if len(shape) != 3 or not 0 < np.prod([float(side) for side in shape]) <= MOST_BYTES / 2:
        raise ValueError(f"its image has shape {shape}")
    labels = None
    if "labels" in arrays:
        box = tuple(slice(int(start), int(start) + side) for start, side in
                    zip(arrays["corner"], arrays["labels"].shape, strict=True))  # fmt: skip
        labels = pasted(arrays["labels"].astype(np.uint16), box, shape)
    targets = {int(label): (str(n), str(c)) for label, (n, c) in record["targets"].items()}
    prompts = PromptSet.from_json(record["prompts"])
    plain = {**record, "shape": shape, "indices": tuple(record["indices"]), "targets": targets}
    if record.get("case"):
        plain["case"] = tuple(map(str, record["case"]))
    return Work(**{**plain, "prompts": prompts, "labels": labels})
