"""A PACS over DIMSE: C-FIND, C-GET and C-STORE through pynetdicom."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import DEFAULT_TRANSFER_SYNTAXES, build_context

from promptseg.errors import FormatError
from promptseg.io.pacs.address import Address
from promptseg.io.pacs.credentials import own_title
from promptseg.io.pacs.entries import FIELDS, SeriesEntry

_FIND, _GET = UID("1.2.840.10008.5.1.4.1.2.2.1"), UID("1.2.840.10008.5.1.4.1.2.2.3")
"""Study Root Query/Retrieve Information Model, FIND and GET."""

_PENDING, _SUCCESS = (0xFF00, 0xFF01), 0x0000
_WARNINGS = (0xB000, 0xB006, 0xB007)
"""Of C-STORE: stored, with elements coerced or left out."""

_TIMEOUT_S = 60
CA_FILE = "PROMPTSEG_PACS_CA"
"""File of certificates that a `dimse+tls` server is verified against; the system's if not set."""

_COMPRESSED = (
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.5",
)  # fmt: skip
# An association has room for 128 contexts; these are what series to segment and results come as.
_IMAGES = {
    "CT": (
        "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
    ),
    "MR": (
        "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",
    ),
    "PT": ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130"),
    "NM": ("1.2.840.10008.5.1.4.1.1.20",),
    "CR": ("1.2.840.10008.5.1.4.1.1.1",),
    "DX": ("1.2.840.10008.5.1.4.1.1.1.1",),
    "US": ("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"),
    "OT": ("1.2.840.10008.5.1.4.1.1.7",),
}  # fmt: skip
_OBJECTS = (
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.5.1.4.1.1.481.1",
    "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34",
)  # fmt: skip


class DimsePacs:
    """A DICOM node.

    Args:
        address: With the node's AE title, host and port.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    def find(self, wanted: Mapping[str, str]) -> list[SeriesEntry]:
        """As in `Pacs`; studies first, since a node finds series within a study only."""
        in_series = ("Modality", "SeriesInstanceUID")
        asked = {key: value for key, value in wanted.items() if value}
        studies = {key: value for key, value in asked.items() if key not in in_series}
        found: list[SeriesEntry] = []
        with self._association([build_context(_FIND)], "search") as open_one:
            # An association answers one query at a time: all studies first.
            for study in list(self._answers(open_one, _FIND, _query("STUDY", studies))):
                narrowed = {key: asked[key] for key in in_series if key in asked}
                narrowed["StudyInstanceUID"] = str(study.get("StudyInstanceUID", ""))
                for one in self._answers(open_one, _FIND, _query("SERIES", narrowed)):
                    merged = Dataset()
                    merged.update(study)
                    merged.update(one)
                    found.append(SeriesEntry.of(merged))
        return found

    def fetch(self, study: str, series: str) -> Iterator[Dataset]:
        """As in `Pacs`."""
        got: list[Dataset] = []

        def keep(event: Any) -> int:
            received = event.dataset
            received.file_meta = event.file_meta
            got.append(received)
            return _SUCCESS

        wanted = Dataset()
        wanted.QueryRetrieveLevel = "SERIES"
        wanted.StudyInstanceUID, wanted.SeriesInstanceUID = study, series
        known = self.find({"StudyInstanceUID": study, "SeriesInstanceUID": series})
        contexts = _to_get(known[0].modality if known else "")
        roles = [build_role(UID(uid), scp_role=True) for uid in _kinds()]
        contexts = [build_context(_GET), *contexts]
        with self._association(contexts, "retrieve", roles, keep) as open_one:
            failed = 0
            for status, _ in open_one.send_c_get(wanted, _GET):
                self._check(status, "retrieve")
                failed = int(status.get("NumberOfFailedSuboperations", 0) or 0)
        if failed:
            raise FormatError(f"{self.address}: {failed} objects of the series did not arrive")
        yield from got

    def store(self, files: Sequence[Path]) -> dict[str, str]:
        """As in `Pacs`."""
        refused: dict[str, str] = {}
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
        kinds = {
            (str(one.SOPClassUID), str(one.file_meta.get("TransferSyntaxUID", "")))
            for one in headers
        }
        contexts = [build_context(kind, syntax or None) for kind, syntax in sorted(kinds)]
        with self._association(contexts, "store") as open_one:
            for path in files:
                dataset = pydicom.dcmread(path)
                try:
                    status = open_one.send_c_store(dataset)
                except ValueError:
                    refused[str(dataset.SOPInstanceUID)] = "the node takes no such objects"
                    continue
                code = int(status.get("Status", -1))
                if code != _SUCCESS and code not in _WARNINGS:
                    why = f"status 0x{code:04X}" if code >= 0 else "no answer"
                    refused[str(dataset.SOPInstanceUID)] = why
        return refused

    def _answers(self, open_one: Any, model: Any, query: Dataset) -> Iterator[Dataset]:
        for status, found in open_one.send_c_find(query, model):
            self._check(status, "search")
            if found is not None and int(status.Status) in _PENDING:
                yield found

    def _check(self, status: Dataset, what: str) -> None:
        """Raise FormatError for a status that is neither success nor pending."""
        if "Status" not in status:
            raise FormatError(f"{self.address}: the connection broke during {what}")
        code = int(status.Status)
        if code not in (*_PENDING, _SUCCESS, *_WARNINGS):
            said = f": {status.ErrorComment}" if status.get("ErrorComment") else ""
            raise FormatError(f"{self.address}: refused to {what} with status 0x{code:04X}{said}")

    @contextmanager
    def _association(
        self,
        contexts: list[Any],
        what: str,
        roles: Sequence[Any] = (),
        keep: Callable[[Any], int] | None = None,
    ) -> Iterator[Any]:
        address, entity = self.address, AE(ae_title=own_title())
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_S
        entity.connection_timeout = 10
        open_one = entity.associate(
            address.host,
            address.port or 104,
            contexts=contexts,
            ae_title=address.title,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_C_STORE, keep)] if keep else [],
            tls_args=self._tls(),
        )
        if not open_one.is_established:
            why = "it refuses" if open_one.is_rejected else "no connection to"
            raise FormatError(
                f"{address}: {why} AE title {own_title()} for {what}: check host, port and both "
                "titles (PROMPTSEG_AE_TITLE is this side's)"
            )
        try:
            yield open_one
        finally:
            open_one.release()

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if self.address.scheme != "dimse+tls":
            return None
        try:
            context = ssl.create_default_context(cafile=os.environ.get(CA_FILE) or None)
        except (OSError, ssl.SSLError) as error:
            raise FormatError(f"{CA_FILE}: the certificates cannot be read: {error}") from error
        return context, self.address.host


def _kinds() -> list[str]:
    """Every SOP class that is taken."""
    return [*(uid for kinds in _IMAGES.values() for uid in kinds), *_OBJECTS]


def _to_get(modality: str) -> list[Any]:
    """Contexts to receive a series in; images of its modality compressed as they are stored.

    A node picks one syntax of a context for all its objects, so that each needs its own.
    """
    plain = [build_context(uid, DEFAULT_TRANSFER_SYNTAXES) for uid in _kinds()]
    kinds = _IMAGES.get(modality, ())
    return [*(build_context(uid, one) for uid in kinds for one in _COMPRESSED), *plain]


def _query(level: str, wanted: Mapping[str, str]) -> Dataset:
    """A C-FIND identifier that asks for every field of its level."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    in_series = ("Series", "Modality", "NumberOfSeries")
    for name in FIELDS:
        if name.startswith(in_series) == (level == "SERIES"):
            setattr(query, name, "" if name != "NumberOfSeriesRelatedInstances" else None)
    for name, value in wanted.items():
        setattr(query, name, value)
    return query
