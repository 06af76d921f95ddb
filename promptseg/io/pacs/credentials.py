"""Names and passwords for a PACS: from the environment or the keyring, never from an address."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from promptseg.errors import FormatError
from promptseg.io.pacs.address import Address

USER, PASSWORD, TOKEN = "PROMPTSEG_PACS_USER", "PROMPTSEG_PACS_PASSWORD", "PROMPTSEG_PACS_TOKEN"
TITLE = "PROMPTSEG_AE_TITLE"


@dataclass(frozen=True)
class Credentials:
    """What to show a server. Its `repr` holds no secret.

    Args:
        user: For HTTP basic authentication; empty for none.
        password: Of the user.
        token: Bearer token, instead of a user.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.user or self.token)


def credentials_for(address: Address) -> Credentials:
    """The environment's, else the keyring's entry `promptseg:HOST`, else none.

    Raises:
        FormatError: A password would travel unencrypted to another machine, or a user has none.
    """
    found = _from_environment() or _from_keyring(address)
    if found and address.service.startswith("http:") and not address.here:
        raise FormatError(
            f"{address}: a password is set and this address is not encrypted: use dicomweb://, "
            "which is HTTPS"
        )
    return found


def own_title() -> str:
    """AE title that this side calls itself by."""
    title = os.environ.get(TITLE, "PROMPTSEG").strip()
    if not 1 <= len(title) <= 16 or "\\" in title:
        raise FormatError(f"{TITLE} is {title!r}: an AE title has 1 to 16 characters")
    return title


def _from_environment() -> Credentials:
    token = os.environ.get(TOKEN, "")
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if token:
        return Credentials(token=token)
    if bool(user) != bool(password):
        missing = PASSWORD if user else USER
        raise FormatError(f"{missing} is not set: set both it and the other of the pair")
    return Credentials(user, password)


def _from_keyring(address: Address) -> Credentials:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ModuleNotFoundError:
        return Credentials()
    try:
        held = keyring.get_credential(f"promptseg:{address.host}", None)
    except (KeyringError, RuntimeError):
        return Credentials()
    return Credentials() if held is None else Credentials(held.username or "", held.password or "")
