"""What all visitors of one server share."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promptseg.demo.cases.projects import Projects
from promptseg.demo.keeping import Keeper
from promptseg.demo.models import Models
from promptseg.demo.python_code import SAMPLE
from promptseg.demo.uploads import read_upload, without_folders
from promptseg.demo.visit import CancelledError, Visit
from promptseg.demo.visits import Visits
from promptseg.errors import FormatError, PromptsegError
from promptseg.volume import Volume

MOST_FOLDERS = 12

logger = logging.getLogger(__name__)


@dataclass
class Server:
    """Networks, visits and limits of one server.

    Args:
        models: Networks.
        visits: What each visitor has open.
        keeper: Keeps the work of visitors on disk.
        projects: Projects of `promptseg loop` that visitors may work on.
        max_upload: Most bytes of one upload.
        folder: Where files are made for download; removed by `close`.
    """

    models: Models = field(default_factory=Models)
    visits: Visits = field(default_factory=Visits)
    keeper: Keeper = field(default_factory=Keeper)
    projects: Projects = field(default_factory=Projects)
    max_upload: int = 1 << 30
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="promptseg-demo-")))

    @property
    def uploads(self) -> Path:
        """Folder that uploads arrive in."""
        return self.folder / "uploads"

    def read(self, paths: Sequence[Path], series: str | None = None) -> Volume:
        """Read an upload, or one of its DICOM series; see `read_upload`.

        Raises:
            PromptsegError: It cannot be read, or a path is of no upload but of the server.
        """
        self._check_sent(paths)
        return read_upload(paths, 2 * self.max_upload, series)

    def discard(self, paths: Sequence[Path]) -> None:
        """Delete an upload."""
        self._check_sent(paths)
        for path in paths:
            path.unlink(missing_ok=True)

    def _check_sent(self, paths: Sequence[Path]) -> None:
        arrived = self.uploads.resolve()
        if not all(path.resolve().is_relative_to(arrived) for path in paths):
            raise FormatError("the file was not sent: upload it, a path on the server is refused")

    def new_folder(self, visit: Visit) -> Path:
        """A folder for one file of a visitor, under a name that nobody can guess."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(parents=True)
        visit.folders.append(folder)
        while len(visit.folders) > MOST_FOLDERS:
            shutil.rmtree(visit.folders.pop(0), ignore_errors=True)
        return folder

    def sample(self) -> Volume:
        """The synthetic CT, made anew for every visitor who asks."""
        from promptseg.datasets.phantom import abdomen_phantom

        return abdomen_phantom()[0]

    def attempt(self, visit: Visit, work: Callable[[], object], long_running: bool = False) -> bool:
        """Do something for a visitor; what goes wrong is said on the status line.

        Returns:
            True if it was done.
        """
        if visit.ended:
            visit.refuse("ended")
            return False
        self.projects.touch(visit)
        try:
            with visit.exclusive(long_running):
                work()
        except CancelledError:
            visit.tell("cancelled")
        except PromptsegError as error:
            visit.message = ("error", visit.say("refused", error=self.shown(error)))
        except MemoryError:
            visit.message = ("error", visit.say("failed", error="out of memory"))
        except Exception as error:
            logger.exception("a request failed")
            shown = f"{type(error).__name__}: {self.shown(error)}"
            visit.message = ("error", visit.say("failed", error=shown))
        else:
            self.keeper.keep(visit)
            return True
        return False

    def computing(self) -> bool:
        """True while something is computed for a visitor."""
        return any(visit.busy for visit in self.visits.held())

    @staticmethod
    def shown(error: BaseException) -> str:
        """What an error says, without the folders of the server."""
        return without_folders(str(error))

    def look(self, visit: Visit, work: Callable[[], object]) -> None:
        """Change what is shown, also while the visitor's propagation runs."""
        if visit.ended:
            visit.refuse("ended")
            return
        self.projects.touch(visit)
        try:
            work()
        except PromptsegError as error:
            visit.message = ("error", visit.say("refused", error=self.shown(error)))
        else:
            self.keeper.keep(visit)

    def close(self) -> None:
        """Write the work that waits, and remove the files made for downloads."""
        self.keeper.flush()
        self.projects.close()
        shutil.rmtree(self.folder, ignore_errors=True)


__all__ = ["SAMPLE", "Server"]
