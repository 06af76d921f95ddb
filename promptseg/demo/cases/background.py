"""Training in a process of its own, and how it stands; killed at any moment it goes on later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from promptseg.active.adapting import STEPS
from promptseg.active.loop.project import Project
from promptseg.active.loop.training import LOCK, has_news
from promptseg.errors import FormatError
from promptseg.finetune import state

OUTPUT = "train.log"
NICE = "10"
"""Pages answer first: a training may use what they leave."""
STOP_S = 10.0


@dataclass(frozen=True)
class Curve:
    """How a training went.

    Args:
        version: That it makes.
        points: Step and loss.
        done: Share of it in [0, 1].
    """

    version: int
    points: tuple[tuple[int, float], ...]
    done: float


class Training:
    """The training of one project.

    Args:
        folder: Of the project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """True while this server's process trains."""
        return self._process is not None and self._process.poll() is None

    @property
    def elsewhere(self) -> bool:
        """True while another program trains, such as `promptseg loop train`."""
        if self.running:
            return False
        try:
            with FileLock(self.folder / LOCK).acquire(timeout=0):
                return False
        except Timeout:
            return True

    @property
    def failure(self) -> str:
        """The last line that a training wrote which failed; empty if none did."""
        process = self._process
        # Ended by a signal: somebody stopped it.
        if process is None or process.poll() is None or (process.returncode or 0) <= 0:
            return ""
        path = self.folder / OUTPUT
        lines = (
            path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
        )
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"exit status {process.returncode}"

    def start(self, project: Project, device: str, options: dict[str, float]) -> None:
        """Train from all that was accepted; gives back at once.

        Args:
            project: Of the folder, for the person who asks.
            device: As in `Segmenter`.
            options: `steps` or `minutes`.

        Raises:
            FormatError: One is running, or there is nothing to learn from.
        """
        with self._lock:
            if self.running or self.elsewhere:
                raise FormatError("a training is running already: wait for it or stop it")
            if not has_news(project):
                raise FormatError("nothing was accepted since the version that is in use")
            command = [sys.executable, "-m", "promptseg", "loop", "train", str(self.folder)]
            command += ["--who", project.who, "--device", device]
            for name, value in options.items():
                command += [f"--{name}", f"{value:g}"]
            nice = shutil.which("nice")
            with (self.folder / OUTPUT).open("wb") as output:
                self._process = subprocess.Popen(
                    [nice, "-n", NICE, *command] if nice else command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    # Ctrl+C ends the server, which ends the training itself.
                    start_new_session=True,
                )

    def stop(self) -> None:
        """End the process; what it has learned so far is kept, and `start` goes on with it."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                return
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)


def curve_of(project: Project) -> Curve | None:
    """The latest training, running or not; None if there was none."""
    rows = project.store.run("SELECT version, options FROM trainings ORDER BY version DESC LIMIT 1")
    if not rows:
        return None
    version, options = int(rows[0]["version"]), json.loads(rows[0]["options"])
    logged = list(_logged(project.version_folder(version) / state.FOLDER / state.LOG))
    points = tuple((int(row["step"]), float(row["loss"])) for row in logged if "loss" in row)
    ended = version not in [row["version"] for row in project.unfinished]
    return Curve(version, points, 1.0 if ended else _share(logged, options))


def _share(logged: list[dict[str, Any]], options: dict[str, Any]) -> float:
    last = logged[-1] if logged else {}
    if options.get("minutes"):
        return min(1.0, float(last.get("seconds", 0)) / (60 * float(options["minutes"])))
    return min(1.0, float(last.get("step", 0)) / float(options.get("steps") or STEPS))


def _logged(path: Path) -> Any:
    """Rows of a log, without one that is being written."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            yield row
