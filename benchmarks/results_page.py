"""Write docs/results.md from the JSON files of benchmarks/results, one table a file.

    python benchmarks/results_page.py            # write the page
    python benchmarks/results_page.py --check    # exit 1 if the page is not what they give

A file holds `order`, `title`, the `command` that measured it, `cases` (whether they took part in a
choice), `columns`, `rows` and a `note`. Numbers are changed there, never on the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
HEAD = """# Results

Written by `python benchmarks/results_page.py` from the files of `benchmarks/results`. Every table
names the command that measured it. Dice unless something else is said, mean over n. Where no
spread is given, the runs behind a table kept none; `promptseg evaluate` writes mean, standard
deviation and n of whatever you measure yourself.

The default model changed on 29 November 2026 (weights/README.md). The first four tables and that
of the shipped adapters are of the new one; corrections, margin points, learning from a handful and
speed were measured with the first.
"""


def cell(value: Any) -> str:
    """A number with three digits where it is a share, else as it is."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) and value < 1 else str(value)


def table(content: dict[str, Any]) -> str:
    """One file as a section."""
    columns = content["columns"]
    lines = [f"## {content['title']}", "", f"`{content['command']}`", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in content["rows"]]
    if content.get("cases"):
        lines += ["", f"Cases: {content['cases']}."]
    if content.get("note"):
        lines += ["", content["note"]]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    found = [json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")]
    found.sort(key=lambda content: (content["order"], content["title"]))
    return "\n".join([HEAD, *(table(content) for content in found)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    if parser.parse_args().check:
        return int(page() != PAGE.read_text("utf-8"))
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
