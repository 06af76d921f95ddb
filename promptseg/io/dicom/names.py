"""What targets are called and coded as: TG-263 names, SNOMED CT, interpreted types, colours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from pydicom.dataset import Dataset

from promptseg.io.image import Image
from promptseg.io.toml_text import parse_toml

_MOST_NAME = 64
_SIDES = {
    "left": "left", "right": "right", "l": "left", "r": "right", "lt": "left", "rt": "right",
}  # fmt: skip
_SIDE_CODES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}
# Categories of DICOM's context group 7150.
CATEGORIES = {
    "organ": ("123037004", "Anatomical Structure"),
    "tissue": ("85756007", "Tissue"),
    "abnormal": ("49755003", "Morphologically Abnormal Structure"),
}
_UNKNOWN = ("85756007", "Tissue")
_TARGETS = re.compile(r"(gtv|ctv|ptv|itv|igtv)(?![a-z]{3})", re.IGNORECASE)
_INTERPRETED = {"itv": "CTV", "igtv": "GTV"}
_WHOLE_TARGETS = {
    "gross tumor volume": "GTV", "clinical target volume": "CTV", "planning target volume": "PTV",
    "body": "EXTERNAL",
}  # fmt: skip
# Colours told apart by most people, of Okabe and Ito (2008); for what has no colour of its own.
_PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """One target as DICOM objects call it.

    Args:
        target: Label.
        name: In the user's words.
        short: TG-263 name, or the user's words where there is none.
        code: SNOMED CT code and meaning, None where it is not known.
        category: SNOMED CT code and meaning of what kind of thing it is.
        side: `left`, `right` or empty.
        interpreted: RT ROI Interpreted Type; empty where it is not known.
        colour: Red, green, blue.
    """

    target: int
    name: str
    short: str
    code: tuple[str, str] | None
    category: tuple[str, str]
    side: str
    interpreted: str
    colour: tuple[int, int, int]

    @property
    def type_code(self) -> tuple[str, str]:
        """The code, or that of any tissue, as segmentation objects need one."""
        return self.code or _UNKNOWN

    @property
    def side_code(self) -> tuple[str, str] | None:
        """SNOMED CT code and meaning of the side."""
        return _SIDE_CODES.get(self.side)

    def code_item(self) -> Dataset:
        """The code as an item of a code sequence."""
        return code_item(self.type_code)


def code_item(code: tuple[str, str]) -> Dataset:
    """A SNOMED CT code as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[0], "SCT", code[1]
    return item


def named_targets(image: Image) -> list[Named]:
    """The targets of labels in order, each under a name of its own."""
    found: list[Named] = []
    taken: set[str] = set()
    for target in image.targets:
        one = named(target, image.names.get(target, ""))
        if target in image.verbatim:
            one = replace(one, short=one.name)
        if one.short in taken:
            one = named(target, f"{one.name} {target}")
        taken.add(one.short)
        found.append(one)
    return found


def named(target: int, words: str) -> Named:
    """What a target with a name, or without one, is called and coded as.

    A name that is no wording of a known structure is kept as it is.
    """
    words = " ".join(str(words).replace("\\", "/").split())[:_MOST_NAME] or f"Target {target}"
    key, side = _known(words)
    entry = _table()["organs"].get(key, {})
    interpreted = _WHOLE_TARGETS.get(key, "ORGAN" if key else "")
    started = _TARGETS.match(words)
    if started:
        kind = started.group(1).lower()
        interpreted = _INTERPRETED.get(kind, kind.upper())
        entry = entry or _table()["organs"][_of_type(interpreted)]
    elif entry.get("kind") == "abnormal":
        interpreted = ""
    short = f"{entry['short']}{_suffix(side)}" if key and entry.get("short") else words
    return Named(
        target,
        words,
        short,
        (entry["code"], entry["meaning"]) if "code" in entry else None,
        CATEGORIES[entry.get("kind", "organ") if "code" in entry else "tissue"],
        side,
        interpreted,
        tuple(entry.get("colour", _PALETTE[(target - 1) % len(_PALETTE)])),
    )


def _of_type(interpreted: str) -> str:
    return next(name for name, kind in _WHOLE_TARGETS.items() if kind == interpreted)


def _suffix(side: str) -> str:
    return {"left": "_L", "right": "_R"}.get(side, "")


def _known(words: str) -> tuple[str, str]:
    """Key in the table and side; empty where the words name nothing in it."""
    plain = [word for word in re.split(r"[^0-9a-z]+", words.lower()) if word]
    plain = ["vertebra" if word == "vertebrae" else word for word in plain]
    whole = _canonical(" ".join(plain)) or _by_short().get(words.lower(), "")
    if whole and not _table()["organs"][whole].get("sided"):
        return whole, ""
    sides = [word for word in plain if word in _SIDES]
    rest = _canonical(" ".join(word for word in plain if word not in _SIDES))
    if not rest and sides:
        rest = _by_short().get(re.sub(r"_[lr]$", "", words.lower()), "")
    if len(sides) == 1 and rest and _table()["organs"][rest].get("sided"):
        return rest, _SIDES[sides[0]]
    return (whole, "") if whole else ("", "")


def _canonical(key: str) -> str:
    table = _table()
    return key if key in table["organs"] else str(table["synonyms"].get(key, ""))


@lru_cache(maxsize=1)
def _by_short() -> Mapping[str, str]:
    organs = _table()["organs"]
    return {entry["short"].lower(): name for name, entry in organs.items() if "short" in entry}


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return parse_toml(files("promptseg.io.dicom").joinpath("organs.toml").read_text("utf-8"))
