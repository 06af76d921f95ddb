"""Run the notebooks of this folder and save them with their output.

    python demos/execute.py                     # all of them
    python demos/execute.py 03_teach_an_organ   # one

Each runs in an empty temporary folder, so none needs a file beside it. Needs nbclient and
ipykernel (the `dev` extra).
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
MOST_BYTES = 600_000
COARSE = [round(round(value / 255 * 63) / 63 * 255) for value in range(256)]
NOISE = ("execution", "collapsed", "scrolled")


def notebooks() -> list[Path]:
    """All notebooks of this folder, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path, timeout: int = 600) -> Any:
    """Run one notebook from its first cell.

    Args:
        path: Notebook; it is not written to.
        timeout: Seconds that one cell may take.

    Returns:
        The notebook with its output.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised.
        nbclient.exceptions.CellTimeoutError: A cell took too long.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=where).execute()
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """The same without times of execution and the machine's own warnings."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        for key in NOISE:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [lighter(out) for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


def lighter(output: Any) -> Any:
    """The same with pictures of 64 grey levels: noise beyond that is most of a file's size."""
    for kind in [kind for kind in output.get("data", {}) if kind == "image/png"]:
        picture = Image.open(io.BytesIO(base64.b64decode(output.data[kind]))).convert("RGB")
        buffer = io.BytesIO()
        picture.point(3 * COARSE).save(buffer, format="PNG", optimize=True)
        output.data[kind] = base64.b64encode(buffer.getvalue()).decode()
    return output


def texts(notebook: Any) -> Iterator[str]:
    """Everything that is written in a notebook and its output, but for the pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (
                text for kind, text in output.get("data", {}).items() if kind.startswith("text/")
            )


def save(notebook: Any, path: Path) -> int:
    """Write a notebook, all of it or nothing; returns its size in bytes."""
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    beside = path.with_suffix(".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
    return len(text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks to run; all without")
    chosen = parser.parse_args().names
    for path in notebooks():
        if chosen and path.stem not in [Path(name).stem for name in chosen]:
            continue
        began = perf_counter()
        size = save(execute(path), path)
        over = f", more than {MOST_BYTES // 1000} kB" if size > MOST_BYTES else ""
        print(f"{path.name}: {perf_counter() - began:.0f} s, {size // 1000} kB{over}", flush=True)


if __name__ == "__main__":
    main()
