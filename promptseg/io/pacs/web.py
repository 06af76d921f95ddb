"""A PACS over DICOMweb: QIDO-RS to find, WADO-RS to fetch, STOW-RS to store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from promptseg.errors import FormatError
from promptseg.io.pacs.address import Address
from promptseg.io.pacs.credentials import Credentials, credentials_for
from promptseg.io.pacs.entries import FIELDS, SeriesEntry

_TIMEOUT_S = (10.0, 300.0)
_PAGE = 500
_BATCH_BYTES = 64 * 2**20
# The file as it is stored, not made uncompressed by the server.
_AS_STORED = (("application/dicom", "*"),)


class WebPacs:
    """A DICOMweb service.

    Args:
        address: Of the service, a study or a series.

    Raises:
        FormatError: The credentials cannot be used there.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client = DICOMwebClient(
            address.service, session=_session(credentials_for(address)), timeout=_TIMEOUT_S
        )
        self._client.set_http_retry_params(retry=True, max_attempts=3)

    def find(self, wanted: Mapping[str, str]) -> list[SeriesEntry]:
        """As in `Pacs`."""
        filters = {key: value for key, value in wanted.items() if value}
        found: list[SeriesEntry] = []
        with self._errors("search"):
            while True:
                page = self._client.search_for_series(
                    search_filters=filters, fields=list(FIELDS), limit=_PAGE, offset=len(found)
                )
                found += [SeriesEntry.of(Dataset.from_json(one)) for one in page]
                if len(page) < _PAGE:
                    return found

    def fetch(self, study: str, series: str) -> Iterator[Dataset]:
        """As in `Pacs`."""
        with self._errors("retrieve"):
            yield from self._client.iter_series(study, series, media_types=_AS_STORED)

    def store(self, files: Sequence[Path]) -> dict[str, str]:
        """As in `Pacs`; in requests of some megabytes."""
        refused: dict[str, str] = {}
        for batch in _batches(files):
            datasets = [pydicom.dcmread(path) for path in batch]
            with self._errors("store"):
                answer = self._client.store_instances(datasets)
            refused |= _refused(answer, datasets)
        return refused

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """What can go wrong on the way, in words; never with what was sent."""
        try:
            yield
        except requests.HTTPError as error:
            raise self._refusal(what, error) from None
        except requests.exceptions.SSLError as error:
            why = "its certificate cannot be verified: name your authority's in REQUESTS_CA_BUNDLE"
            raise FormatError(f"{self.address}: {why}") from error
        except requests.Timeout as error:
            raise FormatError(f"{self.address}: no answer in time to {what}") from error
        except requests.RequestException as error:
            raise FormatError(f"{self.address}: cannot be reached to {what}") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            if isinstance(error, FormatError):
                raise
            kind = type(error).__name__
            raise FormatError(f"{self.address}: answers {what} in no DICOMweb: {kind}") from error

    def _refusal(self, what: str, error: requests.HTTPError) -> FormatError:
        status = error.response.status_code if error.response is not None else 0
        hints = {
            401: "it wants a user: set PROMPTSEG_PACS_USER and PROMPTSEG_PACS_PASSWORD",
            403: "the user may not do that",
            404: "there is no such study, series or service",
        }
        hint = hints.get(status, "see the server's own log")
        return FormatError(f"{self.address}: refused to {what} with status {status}: {hint}")


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _session(credentials: Credentials) -> requests.Session:
    session = requests.Session()
    if credentials.token:
        session.auth = _Bearer(credentials.token)
    elif credentials.user:
        session.auth = (credentials.user, credentials.password)
    else:
        # Without this a .netrc would be looked into and sent along unasked.
        session.auth = lambda request: request
    return session


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in files:
        if batch and size + path.stat().st_size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += path.stat().st_size
    if batch:
        yield batch


def _refused(answer: Any, sent: Sequence[Dataset]) -> dict[str, str]:
    """Failures of a STOW answer, and what it does not speak of."""
    failed = {
        str(item.ReferencedSOPInstanceUID): f"failure 0x{int(item.get('FailureReason', 0)):04X}"
        for item in answer.get("FailedSOPSequence", [])
    }
    kept = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence", [])}
    silent = {str(one.SOPInstanceUID) for one in sent} - kept - set(failed)
    return failed | dict.fromkeys(silent, "the answer does not confirm it")
