"""Checkpoints by name: the registry, where the files are, fetching and checking them.

Nothing heavy is imported here: `promptseg weights list` must answer at once.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptseg.errors import WeightsError
from promptseg.io.toml_text import parse_toml
from promptseg.weights.assets import asset_dir
from promptseg.weights.checkpoint import convert, converted_from, load_state, sha256_file

__all__ = [
    "Entry",
    "Verification",
    "cache_dir",
    "check",
    "convert",
    "converted_from",
    "load_state",
    "locate",
    "lookup",
    "pull",
    "registry",
    "sha256_file",
    "verify",
]

RECORD = "digests.json"
Status = Literal["ok", "recorded", "unrecorded", "missing", "mismatch"]


@dataclass(frozen=True)
class Entry:
    """A checkpoint that promptseg knows by name.

    Args:
        name: Name in the registry.
        family: `promptseg`, `segment-anything`, `sam2`, `mobile_sam`, `text`,
            `corrector`, `coarse` or `step`.
        architecture: Size or kind within the family.
        file: Name of the file.
        licence: Terms of the weights.
        source: Who made them.
        url: Where to download the file, None if it ships with the package.
        size: Bytes, None if not known.
        sha256: Digest, None where it is not known for certain.
        pixels: `imagenet` if the encoder expects normalised colours, `unit` if it expects
            grey values in [0, 1] as they are.
    """

    name: str
    family: str
    architecture: str
    file: str
    licence: str
    source: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    pixels: Literal["imagenet", "unit"] = "imagenet"


@dataclass(frozen=True)
class Verification:
    """Outcome for one entry.

    Args:
        name: Name in the registry.
        path: The file found, None if missing.
        status: `ok` (the registry's digest), `recorded` (the digest written down when it was
            pulled), `unrecorded` (no digest to compare with), `missing` or `mismatch`.
        sha256: Digest of the file found.
        expected: Digest it should have, None if none is known.
    """

    name: str
    path: Path | None
    status: Status
    sha256: str | None = None
    expected: str | None = None


def registry() -> dict[str, Entry]:
    """Read weights/registry.toml.

    Raises:
        WeightsError: If the file is missing or malformed.
    """
    path = asset_dir("weights") / "registry.toml"
    try:
        tables = parse_toml(path.read_text(encoding="utf-8"))
        return {name: Entry(name=name, **table) for name, table in tables.items()}
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"cannot read the registry of weights {path}: {error}") from error


def lookup(name: str) -> Entry:
    """Entry of that name.

    Raises:
        WeightsError: If there is none; names the near matches and all known names.
    """
    entries = registry()
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name, entries, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise WeightsError(
        f"no weights or file named {name!r}.{hint} Known names: {', '.join(entries)}"
    )


def cache_dir() -> Path:
    """Folder that `pull` writes to."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("promptseg")) / "weights"


def search_path() -> list[Path]:
    """Folders in the order they are searched: $PROMPTSEG_WEIGHTS, user cache, package."""
    named = os.environ.get("PROMPTSEG_WEIGHTS")
    return [*([Path(named).expanduser()] if named else []), cache_dir(), asset_dir("weights")]


def locate(name: str) -> Path | None:
    """File of a registry entry, or None if it is nowhere; the content is not checked.

    Raises:
        WeightsError: If the name is unknown.
    """
    entry = lookup(name)
    found = (folder / entry.file for folder in search_path())
    return next((path for path in found if path.is_file()), None)


def recorded(path: Path) -> str | None:
    """Digest written down beside the file when it was pulled, None if there is none."""
    record = path.parent / RECORD
    try:
        return json.loads(record.read_text(encoding="utf-8")).get(path.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"cannot read the recorded digests {record} ({error}); delete that file and run "
            "`promptseg weights verify`"
        ) from error


def _record(path: Path, digest: str) -> None:
    from filelock import FileLock

    from promptseg.io.atomic import atomic_path

    target = path.parent / RECORD
    with FileLock(f"{target}.lock"):
        known = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps({**known, path.name: digest}, indent=2) + "\n")


def check(entry: Entry, path: Path) -> str:
    """Digest of the file of an entry, compared with the registry's or the recorded one.

    Raises:
        WeightsError: If they differ.
    """
    digest, expected = sha256_file(path), entry.sha256 or recorded(path)
    if expected and digest != expected:
        raise WeightsError(
            f"{path} is not the {entry.name} that is expected: its sha256 is {digest}, not "
            f"{expected}; delete it and run `promptseg weights pull {entry.name}`"
        )
    return digest


def pull(name: str, progress: bool = True) -> Path:
    """Find the file of an entry, or download it to the user cache; either way checked.

    A download resumes where an earlier one stopped, and the file appears under its name only
    when it is whole. Where the registry has no digest, the one found is printed on stderr and
    recorded beside the file, and checked from then on.

    Args:
        name: Name in the registry.
        progress: Show a bar if stderr is a terminal.

    Raises:
        WeightsError: If the name is unknown, there is no network, or the file is not the
            one expected.
    """
    entry, found = lookup(name), locate(name)
    if found is not None:
        check(entry, found)
        return found
    target = cache_dir() / entry.file
    if entry.url is None:
        raise WeightsError(
            f"{entry.file} ({name}) ships with promptseg but is in none of "
            f"{', '.join(map(str, search_path()))}; install promptseg again"
        )
    from promptseg.weights.download import download

    digest = download(entry.url, target, entry.size, entry.sha256, progress)
    if entry.sha256 is None:
        _record(target, digest)
        print(f"{target}: sha256 {digest} (recorded; the registry has none)", file=sys.stderr)
    return target


def verify(name: str | None = None) -> list[Verification]:
    """Compare the files present with their digests.

    Args:
        name: One entry, or None for all.

    Raises:
        WeightsError: If the name is unknown.
    """
    entries = list(registry().values()) if name is None else [lookup(name)]
    return [_verification(entry) for entry in entries]


def _verification(entry: Entry) -> Verification:
    path = locate(entry.name)
    if path is None:
        return Verification(entry.name, None, "missing", None, entry.sha256)
    digest, expected = sha256_file(path), entry.sha256 or recorded(path)
    if expected is None:
        return Verification(entry.name, path, "unrecorded", digest)
    agreed: Status = "ok" if entry.sha256 else "recorded"
    return Verification(
        entry.name, path, agreed if digest == expected else "mismatch", digest, expected
    )
