"""What `segment` writes beside the mask: reports as JSON, page and table, and the audit trail."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError

if TYPE_CHECKING:
    from promptseg.commands.job import Run

_ROLES = {".html": "page", ".htm": "page", ".csv": "measurements"}


def add_reports(group: argparse._ArgumentGroup) -> None:
    """Declare the options."""
    group.add_argument(
        "--report",
        metavar="FILE.json|FILE.html|FILE.csv",
        type=Path,
        action="append",
        help="write the run manifest with measurements and checks (.json), the quality report "
        "(.html) or the measurements (.csv); may be repeated",
    )
    group.add_argument(
        "--keep-identifiers",
        action="store_true",
        help="put the patient and study of a DICOM image into reports and the audit log",
    )
    group.add_argument(
        "--language", choices=("en", "zh"), default="en", help="of the page (default en)"
    )


@dataclass(frozen=True)
class Reports:
    """The reports that were asked for.

    Args:
        paths: Files by role: `report`, `page`, `measurements`.
        language: Of the page.
        keep_identifiers: True to name the patient.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    language: str = "en"
    keep_identifiers: bool = False

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Reports:
        """Read the options, and look at the audit log before any work.

        Raises:
            UsageError: Two reports are of one kind.
            FormatError: The audit log cannot be written.
        """
        from promptseg.report.audit import check_log

        paths: dict[str, Path] = {}
        for path in arguments.report or ():
            role = _ROLES.get(path.suffix.lower(), "report")
            if role in paths:
                raise UsageError(f"--report: {paths[role]} and {path} are of one kind: give one")
            paths[role] = path
        check_log()
        keep = bool(getattr(arguments, "keep_identifiers", False))
        return cls(paths, arguments.language, keep)

    def write(
        self, done: Run, manifest: Mapping[str, Any], temporary: Mapping[str, Path]
    ) -> dict[str, Any]:
        """Write them to their temporary names.

        Returns:
            The manifest, with measurements and checks where any report was asked for.
        """
        from promptseg.report import save_manifest
        from promptseg.report.measurements import write_csv
        from promptseg.report.quality import review, write_page

        told = {**manifest, **self._patient(done)}
        if not self.paths:
            return told
        reviewed = review(done.volume, done.result, done.prompts)
        told |= {"measurements": reviewed.measured, "quality": reviewed.to_dict()}
        if "measurements" in self.paths:
            write_csv(reviewed.measured, temporary["measurements"])
        if "page" in self.paths:
            patient = list(told.get("patient", {}).values())
            write_page(reviewed, told, temporary["page"], self.language, patient)
        if "report" in self.paths:
            save_manifest(told, temporary["report"])
        return told

    def record(self, manifest: Mapping[str, Any]) -> None:
        """Append the run to the audit log, where one is named.

        Raises:
            FormatError: It cannot be; the mask is written already.
        """
        from promptseg.report.audit import record

        record(manifest, self.keep_identifiers)

    def _patient(self, done: Run) -> dict[str, Any]:
        """Who the image is of, only where it was asked for and the file says so."""
        told = getattr(done.volume.header, "identifiers", None)
        return {"patient": told()} if self.keep_identifiers and told else {}
