"""Scribbles from files: label images, masks, pictures and lists of vertices."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from promptseg.errors import FormatError, PromptError

if TYPE_CHECKING:
    from promptseg.volume import Volume

PathLike = str | os.PathLike[str]
_PICTURES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_VERTICES = (".csv", ".txt", ".json")
_AFFINE_TOLERANCE = 1e-3
_MAX_VERTEX_BYTES = 1 << 28


class Stroke(NamedTuple):
    """What one stroke of a file says.

    Args:
        mask: (I, J, K) bool of its voxels, None where the file lists vertices.
        vertices: Of a line, as the file lists them; None where it is an image.
        positive: False for a stroke outside the target.
        target: Label.
    """

    mask: np.ndarray | None
    vertices: Any
    positive: bool
    target: int


def read_strokes(
    path: PathLike, volume: Volume, positive: bool, target: int, blank: int | None
) -> list[Stroke]:
    """Strokes as a file holds them; arguments, layouts and errors as in `Scribble.from_file`."""
    path = Path(path)
    if path.name.lower().endswith(_VERTICES):
        return [Stroke(None, line, positive, target) for line in _vertices(path)]
    drawn = _values(path, volume)
    labels = _labels(drawn, path, blank)
    if blank is None and len(labels) == 1:
        return [Stroke(drawn == labels[0], None, positive, target)]
    if not positive:
        raise PromptError(
            f"scribble {path} holds labels {labels[:5]}: strokes outside one target need a file "
            "with one non-zero value"
        )
    return _by_label(drawn, labels, 0 if blank is None else blank)


def _by_label(drawn: np.ndarray, labels: list[float], blank: int) -> list[Stroke]:
    """A stroke inside every label, and the strokes of all others outside of it."""
    found = []
    for label in (int(value) for value in labels if value > 0):
        found.append(Stroke(drawn == label, None, True, label))
        outside = (drawn != label) & (drawn != blank)
        if outside.any():
            found.append(Stroke(outside, None, False, label))
    return found


def _labels(drawn: np.ndarray, path: Path, blank: int | None) -> list[float]:
    values = np.unique(drawn[drawn != (0 if blank is None else blank)])
    if not any(values != 0):
        raise PromptError(f"scribble {path} holds no stroke: every value is 0 or blank")
    several = len(values) > 1 or blank is not None
    if several and not ((values == np.round(values)) & (values >= 0)).all():
        shown = ", ".join(f"{value:g}" for value in values[:5])
        raise PromptError(f"scribble {path} holds {shown}: use whole numbers from 0 up as labels")
    return values.tolist()


def _values(path: Path, volume: Volume) -> np.ndarray:
    """(I, J, K) values of an image file on the volume's grid."""
    if path.suffix.lower() in _PICTURES:
        return _picture(path, volume)
    from promptseg.volume import read

    stroke = read(path)
    if stroke.shape != volume.shape:
        raise PromptError(f"scribble {path} has shape {stroke.shape}, the image {volume.shape}")
    if not np.allclose(stroke.affine, volume.affine, atol=_AFFINE_TOLERANCE):
        raise PromptError(f"scribble {path} lies elsewhere than the image: their affines differ")
    return np.asarray(stroke.data)


def _picture(path: Path, volume: Volume) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            drawn = np.array(opened)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: cannot be read as a picture: {error}") from error
    sides = tuple(side for side in volume.shape if side > 1)
    if drawn.ndim != 2 or drawn.shape != sides:
        raise PromptError(
            f"scribble {path} is a picture of shape {drawn.shape}, the image has shape "
            f"{volume.shape}: a picture with one channel fits an image of one slice"
        )
    return drawn.reshape(volume.shape)


def _vertices(path: Path) -> list[Any]:
    """Lists of vertices, one a stroke."""
    try:
        if path.stat().st_size > _MAX_VERTEX_BYTES:
            raise PromptError(f"scribble {path} is too large for a list of vertices")
        text = path.read_text(encoding="utf-8")
        lines = json.loads(text) if path.suffix.lower() == ".json" else _rows(text)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PromptError(f"scribble {path} holds no vertices i,j,k: {error}") from error
    if not isinstance(lines, list) or not lines:
        raise PromptError(f"scribble {path} is empty: give vertices i,j,k")
    single = not isinstance(lines[0], list) or not lines[0] or not isinstance(lines[0][0], list)
    return [lines] if single else lines


def _rows(text: str) -> list[list[list[float]]]:
    """Strokes of vertices in text; a first line of words is a heading."""
    strokes: list[list[list[float]]] = [[]]
    for number, line in enumerate(text.splitlines()):
        parts = line.replace(";", ",").replace("\t", ",").split(",")
        if not line.strip():
            strokes.append([])
        elif number or not any(part.strip().isalpha() for part in parts):
            strokes[-1].append([float(part) for part in parts])
    return [stroke for stroke in strokes if stroke]
