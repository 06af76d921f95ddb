"""Where a PACS is, and what in it: `dicomweb://host/dicom-web/studies/UID/series/UID`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from promptseg.errors import FormatError

SCHEMES = ("dicomweb", "dicomweb+http", "dimse", "dimse+tls")
"""`dicomweb` is HTTPS, or HTTP on this very machine; `dimse` the older protocol, with AE titles."""

_UID = re.compile(r"[0-9.]{1,64}")
_PLACE = re.compile(r"(?P<root>.*?)(?:/studies/(?P<study>[^/]+))?(?:/series/(?P<series>[^/]+))?/?")
_AE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


@dataclass(frozen=True)
class Address:
    """A PACS, a study or a series in it.

    Args:
        scheme: One of `SCHEMES`.
        host: Name or number.
        port: None for the protocol's own.
        root: Path of the DICOMweb service, such as `/dicom-web`.
        title: AE title of the other side, for DIMSE.
        study: StudyInstanceUID, None for the whole PACS.
        series: SeriesInstanceUID, None for the whole study.
    """

    scheme: str
    host: str
    port: int | None = None
    root: str = ""
    title: str = ""
    study: str | None = None
    series: str | None = None

    def __str__(self) -> str:
        title = f"{self.title}@" if self.title else ""
        port = f":{self.port}" if self.port else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        study = f"/studies/{self.study}" if self.study else ""
        series = f"/series/{self.series}" if self.series else ""
        return f"{self.scheme}://{title}{host}{port}{self.root}{study}{series}"

    @property
    def service(self) -> str:
        """URL of the DICOMweb service."""
        plain = self.scheme == "dicomweb+http" or (self.scheme == "dicomweb" and self.here)
        bare = replace(self, scheme="http" if plain else "https", study=None, series=None)
        return str(bare)

    @property
    def here(self) -> bool:
        """True for this machine, where nobody listens in between."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def web(self) -> bool:
        """True for DICOMweb, False for DIMSE."""
        return self.scheme.startswith("dicomweb")

    def of(self, study: str, series: str | None = None) -> Address:
        """The same PACS, a study or series in it."""
        return replace(self, study=study, series=series)


def is_address(place: object) -> bool:
    """True for text that names a place in a PACS."""
    return isinstance(place, str) and place.partition("://")[0].lower() in SCHEMES


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        FormatError: It is of another form, or holds a password.
    """
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise FormatError(f"the PACS address cannot be read: {error}") from error
    if scheme not in SCHEMES or not host:
        raise FormatError(
            f"{_shown(text)} is no PACS address: give dicomweb://HOST[:PORT]/PATH or "
            "dimse://AETITLE@HOST:PORT"
        )
    if parts.query or parts.fragment:
        raise FormatError(f"{_shown(text)}: a PACS address has no ? and no #")
    found = Address(scheme, host, port, title=parts.username or "")
    if parts.password is not None or (found.web and parts.username):
        raise FormatError(
            f"{_shown(text)}: a password in an address ends up in logs: set PROMPTSEG_PACS_USER "
            "and PROMPTSEG_PACS_PASSWORD, or keep it in the keyring"
        )
    return _with_place(found, parts.path, text)


def _with_place(found: Address, path: str, text: str) -> Address:
    place = _PLACE.fullmatch(path)
    root, study, series = place.groups() if place else (path, None, None)
    for uid in (study, series):
        if uid is not None and not _UID.fullmatch(uid):
            raise FormatError(f"{_shown(text)}: {uid!r} is no UID: digits and points, at most 64")
    if series and not study:
        raise FormatError(f"{_shown(text)}: name the study too: /studies/UID/series/UID")
    if not found.web:
        if not _AE.fullmatch(found.title) or not found.port or root.strip("/"):
            raise FormatError(f"{_shown(text)}: give dimse://AETITLE@HOST:PORT[/studies/UID...]")
        root = ""
    return replace(found, root=root.rstrip("/"), study=study, series=series)


def _shown(text: str) -> str:
    """The address without anything before an @ that may be a password."""
    return re.sub(r"//[^/@]*@", "//...@", text)
